package durability

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"vmcryptfs/fs/cryptfile"
	"vmcryptfs/integration/mounttest"
	"vmcryptfs/integration/tally"
)

// newPool is a directory with room for so much.
func newPool(t *testing.T, size string) string {
	t.Helper()
	pool := t.TempDir()
	if err := unix.Mount("pool", pool, "tmpfs", 0, "size="+size); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(pool, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return pool
}

// newOnThin mounts a datastore whose BACKING is ext4 of 64 MiB on a smaller disk; runOut takes
// away the disk's remaining space.
func newOnThin(t *testing.T) (d *mounttest.Datastore, runOut func()) {
	t.Helper()
	pool := newPool(t, "32m")
	d, _ = newOnLoopAt(t, filepath.Join(pool, "disk.img"), 64, "", "-O", "^has_journal")
	return d, func() {
		t.Helper()
		filler, err := os.Create(filepath.Join(pool, "filler"))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = filler.Close() }()
		for err == nil {
			_, err = filler.Write(make([]byte, 4096))
		}
		if !errors.Is(err, unix.ENOSPC) {
			t.Fatal(err)
		}
	}
}

// TestLostWriteIsToldToAll: an answered write does not reach the disk. Each process with the file
// open is told by its next fsync, once, as on a local file system, whichever process made BACKING
// report the loss.
func TestLostWriteIsToldToAll(t *testing.T) {
	t.Parallel()
	d, runOut := newOnThin(t)
	const reserved = 1 << 20
	names := []string{"disk.img", "grown.img", "vm.log"}
	paths := []string{d.Below("plain")} // of ext4 itself, which must behave the same
	for _, name := range names {
		paths = append(paths, d.Path(name))
	}
	for _, path := range paths {
		f, err := os.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(fallocate(f, 0, 0, reserved), f.Truncate(reserved+100), f.Sync(), f.Close()); err != nil {
			t.Fatal(err)
		}
	}
	runOut()
	for _, path := range paths {
		loseWrites(t, path, reserved, filepath.Base(path) == "grown.img")
	}
	tally.Add(t, "faults", len(paths))
}

// loseWrites makes three processes write to a file of reserved bytes and a few. grow: one of them
// makes the file longer; for an encrypted file, the end is then cleaned and synced.
func loseWrites(t *testing.T, path string, reserved int64, grow bool) {
	t.Helper()
	var open [3]*os.File
	for i := range open {
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = f.Close() }()
		if _, err := f.WriteAt(noise(64<<10), int64(i)*reserved/4); err != nil {
			t.Fatal(err)
		}
		open[i] = f
	}
	if grow && open[0].Truncate(reserved+1000) == nil {
		t.Errorf("%s grew, and no sync of its end met the loss", path)
	}
	for i, f := range open {
		if err := f.Sync(); !errors.Is(err, unix.EIO) && !errors.Is(err, unix.ENOSPC) {
			t.Errorf("%s: fsync of descriptor %d, what it wrote being lost: %v, want EIO or ENOSPC", path, i, err)
		}
	}
	for i, f := range open {
		_ = f.Sync() // the disk may have said more than one thing
		if err := f.Sync(); err != nil {
			t.Errorf("%s: fsync of descriptor %d, which was told: %v", path, i, err)
		}
	}
}

// TestLostWriteOutlivesItsWriter: a process with a file open for reading is told of a loss since
// its open, even if the descriptor shared with others is newer (a first writer came, or the last
// one went), and other processes at BACKING were told before.
func TestLostWriteOutlivesItsWriter(t *testing.T) {
	t.Parallel()
	d, runOut := newOnThin(t)
	const reserved = 1 << 20
	paths := map[string]string{ // at BACKING: ext4 itself must behave the same
		d.Below("plain"): d.Below("plain"), d.Path("disk.img"): d.Below("disk.img"), d.Path("vm.log"): d.Below("vm.log"),
	}
	for path := range paths {
		f, err := os.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(fallocate(f, 0, 0, reserved), f.Truncate(reserved), f.Sync(), f.Close()); err != nil {
			t.Fatal(err)
		}
	}
	awaitClosed(t, d, 0)
	runOut()
	for path, below := range paths {
		for _, through := range []string{path, below} { // path: the writer goes; below: a writer of path comes
			reader := openAs(t, path, os.O_RDONLY)
			other := openAs(t, below, os.O_RDONLY)
			writer := openAs(t, through, os.O_RDWR)
			st, err := writer.Stat()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := writer.WriteAt(noise(64<<10), st.Size()-reserved/2); err != nil {
				t.Fatal(err)
			}
			if err := other.Sync(); err == nil {
				t.Fatalf("%s: nothing was lost", path)
			}
			writer.Close()
			if through == path && path != below {
				awaitClosed(t, d, 1)
			}
			openAs(t, path, os.O_WRONLY).Close()
			if err := reader.Sync(); !errors.Is(err, unix.EIO) && !errors.Is(err, unix.ENOSPC) {
				t.Errorf("%s, written through %s: fsync by the reader: %v, want EIO or ENOSPC", path, through, err)
			}
			reader.Close()
			other.Close()
			awaitClosed(t, d, 0)
		}
	}
}

// TestLostWriteIsToldLater: a loss without anybody to tell is told to the first fsync afterwards,
// by whichever process opened the file meanwhile. A process that opens the file after that fsync
// is told nothing.
func TestLostWriteIsToldLater(t *testing.T) {
	t.Parallel()
	d, runOut := newOnThin(t)
	const reserved = 1 << 20
	paths := []string{d.Below("plain"), d.Path("disk.img")} // ext4 itself first
	for _, path := range paths {
		f, err := os.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(fallocate(f, 0, 0, reserved), f.Truncate(reserved), f.Sync(), f.Close()); err != nil {
			t.Fatal(err)
		}
	}
	awaitClosed(t, d, 0)
	runOut()
	for _, path := range paths {
		for _, stays := range []bool{true, false} { // a reader
			reader := openAs(t, path, os.O_RDONLY)
			loseUnheard(t, d, path, stays)
			if !stays {
				reader.Close()
				awaitClosed(t, d, 0)
			}
			later := openAs(t, path, os.O_RDWR)
			if err := later.Sync(); !errors.Is(err, unix.EIO) && !errors.Is(err, unix.ENOSPC) {
				t.Errorf("%s, a reader stays %t: fsync by who opened it later: %v, want EIO or ENOSPC", path, stays, err)
			}
			_ = later.Sync() // the disk may have said more than one thing
			last := openAs(t, path, os.O_RDWR)
			if err := last.Sync(); err != nil {
				t.Errorf("%s, a reader stays %t: fsync by who opened it after that was told: %v", path, stays, err)
			}
			for _, f := range []*os.File{reader, later, last} {
				f.Close()
			}
			awaitClosed(t, d, 0)
		}
	}
}

// loseUnheard makes somebody write to the file at path, held open by a reader, close without a
// sync, and lose the write: afterwards, or before.
func loseUnheard(t *testing.T, d *mounttest.Datastore, path string, afterwards bool) {
	t.Helper()
	writer := openAs(t, path, os.O_RDWR)
	st, err := writer.Stat()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := writer.WriteAt(noise(64<<10), st.Size()/2); err != nil {
		t.Fatal(err)
	}
	if afterwards {
		writer.Close()
		awaitClosed(t, d, 1)
	}
	dir := openAs(t, d.Below("."), os.O_RDONLY)
	_ = unix.Syncfs(int(dir.Fd())) // tells of the file system, and nobody of the file
	dir.Close()
	writer.Close()
	awaitClosed(t, d, 1)
}

func openAs(t *testing.T, path string, flags int) *os.File {
	t.Helper()
	f, err := os.OpenFile(path, flags, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

// awaitClosed waits until only open files are open: the kernel reports a close later.
func awaitClosed(t *testing.T, d *mounttest.Datastore, open int64) {
	t.Helper()
	mounttest.Eventually(t, "closed", mounttest.Patience, func() error {
		if n := d.Status().IO.OpenFiles; n > open {
			return fmt.Errorf("%d files are open", n)
		}
		return nil
	})
}

// TestDurableWriteRefused: a refused write with O_DSYNC, like a sync, takes the kernel's only
// report from all users of a descriptor, and so is recorded. A write without a promise is not.
func TestDurableWriteRefused(t *testing.T) {
	t.Parallel()
	fd, err := unix.Open(filepath.Join(newPool(t, "64k"), "file"), unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	b := cryptfile.NewOSFile(fd)
	defer b.Close()
	for _, d := range []cryptfile.Durability{cryptfile.Volatile, cryptfile.Data, cryptfile.Full} {
		before := b.SyncFailure()
		if _, err := b.WriteAt(make([]byte, 128<<10), 0, d); err != unix.ENOSPC {
			t.Fatalf("WriteAt: %v, want ENOSPC", err)
		}
		if noted := b.SyncFailure() != before; noted != (d != cryptfile.Volatile) {
			t.Errorf("durability %v: noted %t", d, noted)
		}
	}
}
