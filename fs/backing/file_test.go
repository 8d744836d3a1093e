package backing

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"vmcryptfs/byname"
	"vmcryptfs/fs/cryptfile"
)

// A walk asks for regular files alone, but a name may be something else by the time it is
// opened: whoever waits at a pipe, and the driver of a device, then sees no open.
func TestOpenFoundExchanged(t *testing.T) {
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
		b, err := OpenFound(int(root.Fd()), name)
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

// opens gives a function that reports whether what lies at path, no link followed, was opened since.
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

// TestOpenUnfit: Open opens regular files alone, and says what else is there.
func TestOpenUnfit(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	plantKinds(t, dir)
	fd := openDir(t, dir)
	for name, want := range map[string]string{
		"dir": "a directory, no regular file", "link": "a symbolic link, no regular file",
		"pipe": "a named pipe, no regular file", "none": "open none: no such file or directory",
	} {
		b, st, err := Open(fd, name)
		_, unfit := errors.AsType[*byname.UnfitError](err)
		if b != nil || st != nil || err == nil || err.Error() != want || unfit != (name != "none") {
			t.Errorf("%s: %v, %v, want %s", name, b, err, want)
		}
	}
	if b, err := OpenFound(fd, "none"); b != nil || err != nil {
		t.Errorf("a name that a walk found, gone since: %v, %v, want nothing", b, err)
	}
	b, st, err := Open(fd, "file")
	must(t, err)
	defer b.Close()
	if size, err := b.Size(); size != 1 || st.Size != 1 || err != nil {
		t.Errorf("a file of 1 byte has %d, by its status %d, %v", size, st.Size, err)
	}
}

// TestOpenAccessTime: what the program reads for itself leaves no access time.
func TestOpenAccessTime(t *testing.T) {
	t.Parallel()
	for name, read := range map[string]func(path string) error{
		"Open": func(path string) error {
			b, _, err := Open(unix.AT_FDCWD, path)
			if err != nil {
				return err
			}
			_, err = b.ReadAt(make([]byte, 1), 0)
			return errors.Join(err, b.Close())
		},
		"Reopen": func(path string) error {
			fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
			if err != nil {
				return err
			}
			file, err := Reopen(fd, unix.O_RDONLY)
			if err != nil {
				return err
			}
			_, err = unix.Read(file, make([]byte, 1))
			return errors.Join(err, unix.Close(file), unix.Close(fd))
		},
	} {
		path := filepath.Join(t.TempDir(), "f")
		must(t, os.WriteFile(path, []byte("x"), 0o644))
		makeOld(t, path)
		must(t, read(path))
		if wasRead(t, path) {
			t.Errorf("%s leaves an access time", name)
		}
	}
}

// TestOpenForeign: a file of another user may be read, though its access time cannot be left alone.
func TestOpenForeign(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("needs root, to be another user than the owner")
	}
	dir := t.TempDir()
	plant(t, dir, "f", "x")
	fd := openDir(t, dir)
	var openErr, reopenErr error
	asNobody(t, func() {
		b, _, err := Open(fd, "f")
		if openErr = err; err == nil {
			b.Close()
		}
		path, err := unix.Openat(fd, "f", unix.O_PATH|unix.O_CLOEXEC, 0)
		if err != nil {
			reopenErr = err
			return
		}
		file, err := Reopen(path, unix.O_RDONLY)
		reopenErr = errors.Join(err, unix.Close(path))
		if err == nil {
			unix.Close(file)
		}
	})
	if openErr != nil || reopenErr != nil {
		t.Errorf("open: %v; reopen: %v", openErr, reopenErr)
	}
}

// TestOpenToWrite: what is opened for writing is the file that was opened for reading, whatever
// has the name by now.
func TestOpenToWrite(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	plant(t, dir, "f", "old")
	b := open(t, filepath.Join(dir, "f"))
	must(t, os.Rename(filepath.Join(dir, "f"), filepath.Join(dir, "moved")))
	plant(t, dir, "f", "new")
	w, err := OpenToWrite(b)
	must(t, err)
	defer w.Close()
	_, err = w.WriteAt([]byte("OLD"), 0, cryptfile.Volatile)
	must(t, err)
	for name, want := range map[string]string{"f": "new", "moved": "OLD"} {
		if got, err := os.ReadFile(filepath.Join(dir, name)); string(got) != want || err != nil {
			t.Errorf("%s: %q, %v, want %q", name, got, err, want)
		}
	}
}
