package byname

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestReplace: whatever lies at the name and at the temporary's, the new file is there with
// its mode, and nothing else is changed or left.
func TestReplace(t *testing.T) {
	for name, prepare := range map[string]func(at, victim string) error{
		"nothing":     func(string, string) error { return nil },
		"an old file": func(at, _ string) error { return os.WriteFile(at, []byte("old and longer"), 0o644) },
		"a leftover":  func(at, _ string) error { return os.WriteFile(at+".new", []byte("half"), 0o444) },
		"links": func(at, victim string) error {
			return errors.Join(os.Symlink(victim, at), os.Symlink(victim, at+".new"))
		},
		"hard links": func(at, victim string) error { return errors.Join(os.Link(victim, at), os.Link(victim, at+".new")) },
		"pipes":      func(at, _ string) error { return errors.Join(unix.Mkfifo(at, 0o600), unix.Mkfifo(at+".new", 0o600)) },
	} {
		path, dir := openDir(t)
		at, victim := filepath.Join(path, "file"), filepath.Join(t.TempDir(), "victim")
		if err := os.WriteFile(victim, []byte("mine"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := prepare(at, victim); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		old := unix.Umask(0o077)
		err := Replace(dir, "file", []byte("new"), 0o640)
		unix.Umask(old)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if st, err := os.Lstat(at); err != nil || st.Mode() != 0o640 {
			t.Errorf("%s: %v, %v; want a file of mode 0640", name, st, err)
		}
		if b, err := os.ReadFile(at); string(b) != "new" {
			t.Errorf("%s: content %q, %v", name, b, err)
		}
		if b, err := os.ReadFile(victim); string(b) != "mine" {
			t.Errorf("%s: what a link led to is %q, %v", name, b, err)
		}
		if entries, err := os.ReadDir(path); len(entries) != 1 {
			t.Errorf("%s: left behind: %v, %v", name, entries, err)
		}
	}
}

// TestReplaceFails: where the name cannot be replaced, the temporary is gone.
func TestReplaceFails(t *testing.T) {
	path, dir := openDir(t)
	if err := os.MkdirAll(filepath.Join(path, "file", "full"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := Replace(dir, "file", []byte("new"), 0o600); err == nil {
		t.Error("a directory that is not empty is replaced")
	}
	if entries, err := os.ReadDir(path); len(entries) != 1 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}
