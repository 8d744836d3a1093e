package cryptfile_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"vmcryptfs/fs/cryptfile"
)

func openPath(t *testing.T, path string) *cryptfile.OSFile {
	t.Helper()
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	f := cryptfile.NewOSFile(fd)
	t.Cleanup(func() { f.Close() })
	return f
}

func TestLockHeader(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "f")
	first, second := openPath(t, path), openPath(t, path)
	unlock, err := first.LockHeader(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := second.LockHeader(ended); !errors.Is(err, context.Canceled) {
		t.Errorf("locked twice: %v", err)
	}
	got := make(chan error, 1)
	go func() {
		unlock, err := second.LockHeader(t.Context())
		if err == nil {
			unlock()
		}
		got <- err
	}()
	unlock()
	if err := <-got; err != nil {
		t.Error(err)
	}
	// What locks a disk image in its first bytes, as QEMU does, is not in the way.
	image := unix.Flock_t{Type: unix.F_WRLCK, Start: 100, Len: 104}
	if err := unix.FcntlFlock(uintptr(first.Fd()), unix.F_OFD_SETLK, &image); err != nil {
		t.Fatal(err)
	}
	if unlock, err = second.LockHeader(t.Context()); err != nil {
		t.Fatal(err)
	}
	unlock()
	// Closing unlocks.
	if _, err := second.LockHeader(t.Context()); err != nil {
		t.Fatal(err)
	}
	second.Close()
	if unlock, err = first.LockHeader(t.Context()); err != nil {
		t.Fatal(err)
	}
	unlock()
}

func TestLockHeaderReadOnly(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	f := cryptfile.NewOSFile(fd)
	defer f.Close()
	if _, err := f.LockHeader(t.Context()); !errors.Is(err, unix.EBADF) {
		t.Errorf("locked by a descriptor that cannot write: %v", err)
	}
}
