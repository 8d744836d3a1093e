package rekey

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// A walk asks for regular files alone, but a name may be something else by the time it is
// opened: whoever waits at a pipe, and the driver of a device, then sees no open.
func TestOpenFileExchanged(t *testing.T) {
	dir := t.TempDir()
	plant := map[string]func(path string) error{
		"pipe": func(path string) error { return unix.Mkfifo(path, 0o644) },
		"link": func(path string) error { return os.Symlink("elsewhere", path) },
		"file": func(path string) error { return os.WriteFile(path, nil, 0o600) },
	}
	if os.Geteuid() == 0 {
		plant["device"] = func(path string) error { return unix.Mknod(path, unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3))) }
	}
	root, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	for name, f := range plant {
		path := filepath.Join(dir, name)
		if err := f(path); err != nil {
			t.Fatal(err)
		}
		opened := opens(t, path)
		b, err := openFile(int(root.Fd()), name)
		if err != nil || (b != nil) != (name == "file") {
			t.Errorf("%s: %v, %v", name, b, err)
		}
		if b != nil {
			b.Close()
		}
		if got := opened(); got != (name == "file") {
			t.Errorf("%s: opened %v", name, got)
		}
	}
}

// opens tells, when asked, if what lies at path, no link followed, was opened since.
func opens(t *testing.T, path string) func() bool {
	t.Helper()
	watch, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(watch) })
	if _, err := unix.InotifyAddWatch(watch, path, unix.IN_OPEN|unix.IN_DONT_FOLLOW); err != nil {
		t.Fatal(err)
	}
	return func() bool {
		_, err := unix.Read(watch, make([]byte, 4096))
		if err != nil && !errors.Is(err, unix.EAGAIN) {
			t.Error(err)
		}
		return err == nil
	}
}
