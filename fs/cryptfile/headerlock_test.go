package cryptfile_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"vmcryptfs/fs/cryptfile"
	"vmcryptfs/keys"
	"vmcryptfs/layout"
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
	// A lock in the first bytes of a disk image, as QEMU takes one, is not in the way.
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

// A file is open while its header is updated, and is healed by the updated header.
func TestHealHeader(t *testing.T) {
	t.Parallel()
	b := openPath(t, filepath.Join(t.TempDir(), "f"))
	dek, err := keys.NewDEK()
	must(t, err)
	h := &layout.Header{Generation: 1, FileID: layout.FileID{1}}
	dek.Seal(h)
	must(t, cryptfile.Format(b, h))
	stale := make([]byte, layout.SlotSize)
	_, err = b.ReadAt(stale, layout.SlotBOffset)
	must(t, err)
	slots, err := cryptfile.ReadHeader(b)
	must(t, err)
	next := *slots.Header
	must(t, cryptfile.UpdateHeader(b, slots, &next, dek))
	file, err := cryptfile.Open(b, dek)
	must(t, err)
	defer file.Close()

	// An update that was cut off.
	_, err = b.WriteAt(stale, layout.SlotBOffset, cryptfile.Volatile)
	must(t, err)
	must(t, file.HealHeader(t.Context(), b))
	slots, err = b.ReadHeaderLocked(t.Context())
	must(t, err)
	if slots.Differ || slots.Header.Generation != 2 {
		t.Errorf("slots differ: %v, generation %d", slots.Differ, slots.Header.Generation)
	}

	// A foreign header is not copied.
	forged := next
	forged.Generation, forged.MAC[0] = 9, forged.MAC[0]^1
	_, err = b.WriteAt(forged.AppendSlot(nil), layout.SlotAOffset, cryptfile.Volatile)
	must(t, err)
	if err := file.HealHeader(t.Context(), b); !errors.Is(err, keys.ErrTampered) {
		t.Errorf("healed by a forged header: %v", err)
	}
	_, err = b.WriteAt(make([]byte, layout.SlotSize), layout.SlotBOffset, cryptfile.Volatile)
	must(t, err)
	_, err = b.WriteAt(make([]byte, layout.SlotSize), layout.SlotAOffset, cryptfile.Volatile)
	must(t, err)
	if err := file.HealHeader(t.Context(), b); !errors.Is(err, layout.ErrDamaged) {
		t.Errorf("healed without a header: %v", err)
	}
}

// A reader waits for an updater.
func TestReadHeaderLocked(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "f")
	writer := openPath(t, path)
	unlock, err := writer.LockHeader(t.Context())
	must(t, err)
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	must(t, err)
	reader := cryptfile.NewOSFile(fd)
	defer reader.Close()
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := reader.ReadHeaderLocked(ended); !errors.Is(err, context.Canceled) {
		t.Errorf("read beside an update: %v", err)
	}
	unlock()
	if _, err := reader.ReadHeaderLocked(t.Context()); !errors.Is(err, layout.ErrDamaged) {
		t.Errorf("an empty file: %v", err)
	}
}
