package datastore

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"vmcryptfs/byname"
	"vmcryptfs/layout"
)

// victim makes a file whose bytes nobody may change, and checks the bytes at the end.
func victim(t *testing.T, path string) string {
	t.Helper()
	const content = "a disk of somebody else"
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if b, err := os.ReadFile(path); err != nil || string(b) != content {
			t.Errorf("victim is now %q, %v", b, err)
		}
	})
	return path
}

// planting puts something else at path.
type planting struct {
	name  string
	why   string // words in the error
	plant func(t *testing.T, backing, path string) error
}

var plantings = []planting{
	{"hard link to a disk", "a file with 2 names", func(t *testing.T, backing, path string) error {
		return os.Link(victim(t, filepath.Join(backing, "vm-flat.vmdk")), path)
	}},
	{"hard link to a file outside", "a file with 2 names", func(t *testing.T, backing, path string) error {
		return os.Link(victim(t, filepath.Join(filepath.Dir(backing), "outside")), path)
	}},
	{"symbolic link", "a symbolic link", func(t *testing.T, backing, path string) error {
		return os.Symlink(victim(t, filepath.Join(backing, "vm-flat.vmdk")), path)
	}},
	{"dangling link", "a symbolic link", func(t *testing.T, backing, path string) error {
		nothing := filepath.Join(backing, "nothing")
		t.Cleanup(func() {
			if _, err := os.Lstat(nothing); err == nil {
				t.Error("a file was made where the link leads")
			}
		})
		return os.Symlink(nothing, path)
	}},
	{"named pipe", "a named pipe", func(_ *testing.T, _, path string) error { return unix.Mkfifo(path, 0o666) }},
	{"directory", "a directory", func(_ *testing.T, _, path string) error { return os.Mkdir(path, 0o755) }},
	{"device", "a device", func(t *testing.T, _, path string) error {
		if os.Geteuid() != 0 {
			t.Skip("only root can make a device")
		}
		return unix.Mknod(path, unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))) // as /dev/null is
	}},
}

// A user able to write BACKING chooses the file at the lock's name, but not a file overwritten by
// a mount.
func TestLockPlanted(t *testing.T) {
	for _, p := range plantings {
		t.Run(p.name, func(t *testing.T) {
			s := newSite(t)
			if err := os.Remove(s.path(lockName)); err != nil {
				t.Fatal(err)
			}
			if err := p.plant(t, s.backing, s.path(lockName)); err != nil {
				t.Fatal(err)
			}
			_, err := s.host.Open(s.backing, true)
			if _, ok := errors.AsType[*byname.UnfitError](err); !ok || !strings.Contains(err.Error(), ".vmcryptfs/lock is "+p.why) {
				t.Fatalf("error %v, want that the lock is %s", err, p.why)
			}
			s.open(s.host) // operations without a lock work
			if err := os.RemoveAll(s.path(lockName)); err != nil {
				t.Fatal(err)
			}
			st, err := s.host.Open(s.backing, true)
			if err != nil {
				t.Fatalf("after what the error says was done: %v", err)
			}
			st.Close()
		})
	}
}

// The same before there is a datastore.
func TestInitPlanted(t *testing.T) {
	for _, p := range plantings {
		t.Run(p.name, func(t *testing.T) {
			s := &site{t: t, backing: t.TempDir(), host: newHost(t), kms: &kms{name: "corp", keys: map[string]string{"k1": "one"}}}
			if err := os.Mkdir(s.path(""), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := p.plant(t, s.backing, s.path(lockName)); err != nil {
				t.Fatal(err)
			}
			err := s.host.Init(s.backing, s.settings("k1"), s.kek("k1"))
			if _, ok := errors.AsType[*byname.UnfitError](err); !ok {
				t.Errorf("error %v", err)
			}
		})
	}
}

// The same for the temporary's name: a file there is removed, not written.
func TestChangePlanted(t *testing.T) {
	for _, p := range plantings {
		if p.name == "directory" {
			continue
		}
		t.Run(p.name, func(t *testing.T) {
			s := newSite(t)
			if err := p.plant(t, s.backing, s.path(SettingsName+".new")); err != nil {
				t.Fatal(err)
			}
			if err := s.open(s.host).Change(s.settings("k1"), s.kek("k1")); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestSettingsPlanted(t *testing.T) {
	for _, p := range plantings {
		if p.why == "a file with 2 names" { // the file may be read: the seal proves the content
			continue
		}
		t.Run(p.name, func(t *testing.T) {
			s := newSite(t)
			if err := os.Remove(s.path(SettingsName)); err != nil {
				t.Fatal(err)
			}
			if err := p.plant(t, s.backing, s.path(SettingsName)); err != nil {
				t.Fatal(err)
			}
			_, err := s.host.Open(s.backing, true)
			if wrong, ok := errors.AsType[*layout.SettingsError](err); !ok || !strings.HasPrefix(wrong.Reason, p.why) {
				t.Errorf("error %v, want that the settings are %s", err, p.why)
			}
		})
	}
}

// A lock file perhaps put there by another user excludes, and is not written: before getting the
// name, the file may have been another user's.
func TestLockOfOthers(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can make another user's file")
	}
	const foreign = 12345
	for _, c := range []struct {
		name    string
		content string
		change  func(s *site) error
		written bool
	}{
		{"its own", "", func(*site) error { return nil }, true},
		{"an old line", "4711 kvm1\n", func(*site) error { return nil }, true},
		{"other content", "root:x:0:0", func(*site) error { return nil }, false},
		{"a line, and more", "4711 kvm1\n" + strings.Repeat("x", maxLock), func(*site) error { return nil }, false},
		{"foreign file", "", func(s *site) error { return os.Chown(s.path(lockName), foreign, -1) }, false},
		{"foreign directory", "", func(s *site) error { return os.Chown(s.path(""), foreign, -1) }, false},
		{"directory for all", "", func(s *site) error { return os.Chmod(s.path(""), 0o777) }, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSite(t)
			if err := os.WriteFile(s.path(lockName), []byte(c.content), 0o644); err != nil {
				t.Fatal(err)
			}
			if err := c.change(s); err != nil {
				t.Fatal(err)
			}
			st, err := s.host.Open(s.backing, true)
			if err != nil {
				t.Fatal(err)
			}
			defer st.Close()
			b, err := os.ReadFile(s.path(lockName))
			if written := string(b) != c.content; err != nil || written != c.written {
				t.Errorf("lock file holds %q, %v; want it written %v", b, err, c.written)
			}
			if _, err := s.host.Open(s.backing, true); !errors.Is(err, ErrBusy) {
				t.Errorf("second exclusive open: %v, want ErrBusy", err)
			}
		})
	}
}

// This host's memory is its own word: nothing in a place writable by another user counts.
func TestStateOfOthers(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can make another user's directory")
	}
	const foreign = 12345
	for _, c := range []struct {
		name, want string
		change     func(s *site) error
	}{
		{"directory for all", "may be written by others", func(s *site) error { return os.Chmod(s.host.state, 0o777) }},
		{"foreign directory", "belongs to user 12345", func(s *site) error { return os.Chown(s.host.state, foreign, -1) }},
		{"foreign memory", "a file of user 12345", func(s *site) error {
			return os.Chown(filepath.Join(s.host.state, memoryName), foreign, -1)
		}},
		{"pipe for memory", "a named pipe", func(s *site) error {
			path := filepath.Join(s.host.state, memoryName)
			return errors.Join(os.Remove(path), unix.Mkfifo(path, 0o600))
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSite(t)
			if err := c.change(s); err != nil {
				t.Fatal(err)
			}
			if err := s.mount(s.host, false); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("mount: %v, want %q", err, c.want)
			}
			if err := s.mount(s.host, true); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("mount with --trust: %v, want %q", err, c.want)
			}
		})
	}
}
