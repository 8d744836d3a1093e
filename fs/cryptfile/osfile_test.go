package cryptfile_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"vmcryptfs/fs/cryptfile"
	"vmcryptfs/layout"
)

// osFile is an empty file, on the disk of the tests or on tmpfs.
func osFile(t *testing.T, dir string) *cryptfile.OSFile {
	t.Helper()
	fd, err := unix.Open(filepath.Join(dir, "f"), unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	b := cryptfile.NewOSFile(fd)
	t.Cleanup(func() { b.Close() })
	return b
}

// directories are one on the disk of the tests and one on tmpfs, which has no zero range.
func directories(t *testing.T) map[string]string {
	t.Helper()
	shm, err := os.MkdirTemp("/dev/shm", "cryptfile")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(shm) })
	return map[string]string{"disk": t.TempDir(), "tmpfs": shm}
}

func TestOSFile(t *testing.T) {
	t.Parallel()
	for name, dir := range directories(t) {
		t.Run(name, func(t *testing.T) {
			b := osFile(t, dir)
			for i, d := range []cryptfile.Durability{cryptfile.Volatile, cryptfile.Data, cryptfile.Full} {
				if n, err := b.WriteAt(pattern(1000, byte(i)), int64(i)*1000, d); n != 1000 || err != nil {
					t.Errorf("WriteAt with durability %d = %d, %v", d, n, err)
				}
			}
			p := make([]byte, 5000)
			want := append(append(pattern(1000, 0), pattern(1000, 1)...), pattern(1000, 2)...)
			if n, err := b.ReadAt(p, 0); err != nil || !bytes.Equal(p[:n], want) {
				t.Errorf("ReadAt = %d, %v, or other bytes", n, err)
			}
			must(t, b.Truncate(100000))
			if size, err := b.Size(); size != 100000 || err != nil {
				t.Errorf("Size = %d, %v", size, err)
			}
			must(t, b.Sync(cryptfile.Data))
			must(t, b.Sync(cryptfile.Full))
			if at, err := b.Seek(50000, unix.SEEK_HOLE); at != 50000 || err != nil {
				t.Errorf("Seek = %d, %v", at, err)
			}
			must(t, b.Fallocate(unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, 4096))
			must(t, b.Close())
			must(t, b.Close())
			if _, err := b.ReadAt(p, 0); !errors.Is(err, unix.EBADF) {
				t.Errorf("ReadAt after Close: %v", err)
			}
		})
	}
}

// Errors are the kernel's, unchanged.
func TestOSFileErrors(t *testing.T) {
	t.Parallel()
	full, err := unix.Open("/dev/full", unix.O_RDWR|unix.O_CLOEXEC, 0)
	must(t, err)
	b := cryptfile.NewOSFile(full)
	defer b.Close()
	if n, err := b.WriteAt(make([]byte, 10), 0, cryptfile.Volatile); n != 0 || err != unix.ENOSPC {
		t.Errorf("WriteAt = %d, %v, want ENOSPC", n, err)
	}
	if err := b.Truncate(5); err != unix.EINVAL {
		t.Errorf("Truncate: %v, want EINVAL", err)
	}
	if failure := b.SyncFailure(); failure != nil {
		t.Errorf("failed before any sync: %v", failure.Err)
	}
	for _, d := range []cryptfile.Durability{cryptfile.Data, cryptfile.Full} {
		before := b.SyncFailure()
		if err := b.Sync(d); err != unix.EINVAL {
			t.Errorf("Sync: %v, want EINVAL", err)
		}
		if failure := b.SyncFailure(); failure == before || failure.Err != unix.EINVAL {
			t.Errorf("the failed sync was not noted")
		}
	}
}

// A file over a real one does every operation, and is read back afterwards.
func TestFileOverOSFile(t *testing.T) {
	t.Parallel()
	x := newFixture(t)
	for name, dir := range directories(t) {
		t.Run(name, func(t *testing.T) {
			b := osFile(t, dir)
			f := x.create(t, b)
			want := pattern(300001, 1)
			if _, err := f.WriteAt(bytes.Clone(want), 0, cryptfile.Full); err != nil {
				t.Fatal(err)
			}
			must(t, f.Punch(10000, 100000))
			clear(want[10000:110000])
			must(t, f.Zero(250000, 100000, false))
			want = resized(want, 350000)
			clear(want[250000:])
			must(t, f.Allocate(400000, 10000, false))
			want = resized(want, 410000)
			must(t, f.Truncate(390001))
			want = want[:390001]
			if got := content(t, f); !bytes.Equal(got, want) {
				t.Error("reads otherwise")
			}
			if at, err := f.Seek(20480, unix.SEEK_DATA); at < 90000 || at > 110000 || err != nil {
				t.Errorf("data after the hole at %d, %v", at, err)
			}
			var st unix.Stat_t
			must(t, unix.Fstat(b.Fd(), &st))
			if st.Size != layout.DataOffset+layout.StoredLen(390001) {
				t.Errorf("backing size %d", st.Size)
			}
			// Two slots, 300 KB of data less the hole, and reserved space: not the 1 MiB.
			if st.Blocks*512 > 420000 {
				t.Errorf("%d bytes of space: header or holes are not sparse", st.Blocks*512)
			}
			must(t, f.Sync(cryptfile.Full))
		})
	}
}

func TestOSFileAllocations(t *testing.T) {
	b := osFile(t, t.TempDir())
	p := make([]byte, 4096)
	for _, d := range []cryptfile.Durability{cryptfile.Volatile, cryptfile.Data} {
		n := testing.AllocsPerRun(20, func() {
			b.WriteAt(p, 0, d)
			b.ReadAt(p, 0)
		})
		if n != 0 {
			t.Errorf("durability %d: %v allocations", d, n)
		}
	}
}
