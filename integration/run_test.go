package integration

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// patience bounds every command: a mount that hangs is a failure, not a stuck test.
const patience = 2 * time.Minute

// result of a command that ran to its end.
type result struct {
	argv   []string
	code   int
	stdout string
	stderr string
}

func (r result) String() string {
	return fmt.Sprintf("%s: exit %d\n%s%s", strings.Join(r.argv, " "), r.code, r.stdout, r.stderr)
}

// run runs a command with env added to the test's own; it fails the test only when the
// command could not be started or did not end.
func run(t testing.TB, env []string, argv ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c := exec.CommandContext(ctx, argv[0], argv[1:]...)
	c.Env = append(os.Environ(), env...)
	// A daemon that keeps the pipes open must not keep us.
	c.WaitDelay = 5 * time.Second
	var stdout, stderr bytes.Buffer
	c.Stdout, c.Stderr = &stdout, &stderr
	err := c.Run()
	r := result{argv: argv, code: c.ProcessState.ExitCode(), stdout: stdout.String(), stderr: stderr.String()}
	var exit *exec.ExitError
	if ctx.Err() != nil {
		t.Fatalf("still running after %v: %v", patience, r)
	}
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("%v: %v", err, r)
	}
	return r
}

// tool runs a command that must succeed and gives its standard output.
func tool(t testing.TB, argv ...string) string {
	t.Helper()
	r := run(t, nil, argv...)
	if r.code != 0 {
		t.Fatal(r)
	}
	return r.stdout
}

// program is the vmcryptfs binary, built once for all tests.
func program(t testing.TB) string {
	t.Helper()
	path, err := buildOnce()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

var buildOnce = sync.OnceValues(func() (string, error) {
	if err := dependOnSources(".."); err != nil {
		return "", err
	}
	out := filepath.Join("/run", "vmcryptfs-under-test") // tmpfs of the namespace
	c := exec.Command("go", "build", "-o", out, "vmcryptfs/cmd/vmcryptfs")
	if text, err := c.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build vmcryptfs: %w\n%s", err, text)
	}
	return out, nil
})

// dependOnSources opens every directory of the module: go test records what a test
// opens, and so does not give a cached "ok" for a program that has changed since.
func dependOnSources(module string) error {
	return filepath.WalkDir(module, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil || !d.IsDir():
			return err
		case d.Name() == ".git":
			return filepath.SkipDir
		}
		dir, err := os.Open(path)
		if err != nil {
			return err
		}
		return dir.Close()
	})
}
