package mounttest

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// Program is the vmcryptfs binary, built once for all tests of a package.
func Program(t testing.TB) string {
	t.Helper()
	path, err := buildOnce()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

var buildOnce = sync.OnceValues(func() (string, error) {
	module, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		return "", fmt.Errorf("find the module: %w", err)
	}
	if err := dependOnSources(strings.TrimSpace(string(module))); err != nil {
		return "", err
	}
	out := filepath.Join("/run", "vmcryptfs-under-test") // tmpfs of the namespace
	c := exec.Command("go", "build", "-o", out, "vmcryptfs/cmd/vmcryptfs")
	if text, err := c.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build vmcryptfs: %w\n%s", err, text)
	}
	return out, nil
})

// dependOnSources opens every directory of the module: go test records a test's opens, and so
// gives no cached "ok" for a changed program.
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
