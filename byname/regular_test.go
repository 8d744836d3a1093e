package byname

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// openDir returns the test's directory and a descriptor of the directory.
func openDir(t *testing.T) (string, int) {
	t.Helper()
	dir := t.TempDir()
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return dir, int(f.Fd())
}

// A file that is not regular gives an error naming the type, and is not opened: the test does not
// wait for a pipe, and no driver is asked (the device here has none, so an open gives ENXIO).
func TestOpenRegularOnly(t *testing.T) {
	dir, fd := openDir(t)
	victim := filepath.Join(dir, "victim")
	if err := os.WriteFile(victim, []byte("bytes"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, why string
		make      func(path string) error
	}{
		{"link", "a symbolic link", func(path string) error { return os.Symlink(victim, path) }},
		{"dangling", "a symbolic link", func(path string) error { return os.Symlink("nothing", path) }},
		{"directory", "a directory", func(path string) error { return os.Mkdir(path, 0o755) }},
		{"pipe", "a named pipe", func(path string) error { return unix.Mkfifo(path, 0o644) }},
		{"socket", "a socket", func(path string) error {
			l, err := net.Listen("unix", path)
			if err == nil {
				t.Cleanup(func() { l.Close() })
			}
			return err
		}},
		{"device", "a device", func(path string) error {
			return unix.Mknod(path, unix.S_IFCHR|0o666, int(unix.Mkdev(240, 77)))
		}},
	} {
		if c.name == "device" && os.Geteuid() != 0 {
			continue
		}
		if err := c.make(filepath.Join(dir, c.name)); err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		for _, open := range []func() (int, unix.Stat_t, error){
			func() (int, unix.Stat_t, error) { return Open(fd, c.name, unix.O_RDWR) },
			func() (int, unix.Stat_t, error) { return OpenOrMake(fd, c.name, unix.O_RDWR, 0o600) },
		} {
			got, _, err := open()
			unfit, ok := errors.AsType[*UnfitError](err)
			if !ok || !strings.HasPrefix(unfit.Why, c.why) {
				t.Errorf("%s: descriptor %d, %v; want it to be %s", c.name, got, err, c.why)
			}
		}
	}
	if b, err := os.ReadFile(victim); err != nil || string(b) != "bytes" {
		t.Errorf("victim %q, %v", b, err)
	}
	if _, err := os.Lstat(filepath.Join(dir, "nothing")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("made where a link leads: %v", err)
	}
}

func TestOpenOrMake(t *testing.T) {
	dir, fd := openDir(t)
	if _, _, err := Open(fd, "f", unix.O_RDONLY); !errors.Is(err, unix.ENOENT) {
		t.Errorf("open of nothing: %v", err)
	}
	for _, content := range []string{"ab", "abab"} { // made, then found: neither emptied nor written from the beginning
		f, st, err := OpenOrMake(fd, "f", unix.O_WRONLY|unix.O_APPEND, 0o640)
		if err != nil || st.Mode != unix.S_IFREG|0o640 {
			t.Fatalf("mode %o, %v", st.Mode, err)
		}
		_, err = unix.Write(f, []byte("ab"))
		if err := errors.Join(err, unix.Close(f)); err != nil {
			t.Fatal(err)
		}
		if b, err := os.ReadFile(filepath.Join(dir, "f")); err != nil || string(b) != content {
			t.Errorf("content %q, %v; want %q", b, err, content)
		}
	}
}

// The inode is opened, under whatever name.
func TestReopen(t *testing.T) {
	dir, fd := openDir(t)
	for _, name := range []string{"a", "b"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	f, _, err := Open(fd, "a", unix.O_RDONLY)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(f)
	if err := unix.Renameat2(fd, "a", fd, "b", unix.RENAME_EXCHANGE); err != nil {
		t.Fatal(err)
	}
	again, err := Reopen(f, unix.O_RDWR)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(again)
	b := make([]byte, 2)
	if n, err := unix.Read(again, b); err != nil || string(b[:n]) != "a" {
		t.Errorf("content %q, %v", b[:n], err)
	}
}

func TestSingleAndOwned(t *testing.T) {
	for _, c := range []struct {
		links         uint64
		uid           int
		single, owned bool
	}{
		{1, os.Geteuid(), true, true},
		{1, 0, true, true},
		{0, 0, true, true}, // removed since
		{2, 0, false, true},
		{1, 12345, true, false},
	} {
		st := unix.Stat_t{Uid: uint32(c.uid)}
		for range c.links {
			st.Nlink++
		}
		if err := Single(&st); (err == nil) != c.single {
			t.Errorf("%d links: %v", c.links, err)
		}
		if err := Owned(&st); (err == nil) != c.owned {
			t.Errorf("user %d: %v", c.uid, err)
		}
	}
}
