package mounttest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// Patience bounds every command: a hanging mount is a failure, not a stuck test.
const Patience = 2 * time.Minute

// Result is the result of a command that ended.
type Result struct {
	Argv   []string
	Code   int
	Stdout string
	Stderr string
}

func (r Result) String() string {
	return fmt.Sprintf("%s: exit %d\n%s%s", strings.Join(r.Argv, " "), r.Code, r.Stdout, r.Stderr)
}

// Run runs a command with env added to the test's own. Run fails the test only when the command
// could not be started or did not end.
func Run(t testing.TB, env []string, argv ...string) Result {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	c := exec.CommandContext(ctx, argv[0], argv[1:]...)
	c.Env = append(os.Environ(), env...)
	// A daemon that keeps the pipes open must not keep the test waiting.
	c.WaitDelay = 5 * time.Second
	var stdout, stderr bytes.Buffer
	c.Stdout, c.Stderr = &stdout, &stderr
	err := c.Run()
	r := Result{Argv: argv, Code: c.ProcessState.ExitCode(), Stdout: stdout.String(), Stderr: stderr.String()}
	var exit *exec.ExitError
	if ctx.Err() != nil {
		t.Fatalf("still running after %v: %v", Patience, r)
	}
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("%v: %v", err, r)
	}
	return r
}

// Tool runs a command and returns the standard output; the test fails if the command fails.
func Tool(t testing.TB, argv ...string) string {
	t.Helper()
	r := Run(t, nil, argv...)
	if r.Code != 0 {
		t.Fatal(r)
	}
	return r.Stdout
}

// Eventually calls ok again and again until ok returns nil.
func Eventually(t testing.TB, what string, within time.Duration, ok func() error) {
	t.Helper()
	deadline := time.Now().Add(within)
	for err := ok(); err != nil; err = ok() {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %v: %v", what, within, err)
		}
		time.Sleep(20 * time.Millisecond) // between two questions to another process
	}
}
