package cryptfile_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"vmcryptfs/fs/cryptfile"
)

// page returns a buffer that begins at a page.
func page(n int) []byte {
	b := make([]byte, n+4096)
	return b[4096-int(uintptr(unsafe.Pointer(&b[0])))&4095:][:n]
}

// TestDirectRequests: a direct user reads and writes the same as other users, for every alignment
// of a request in the file and in memory and for every end of the file.
func TestDirectRequests(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "file")
	want := make([]byte, 20000)
	for i := range want {
		want[i] = byte(i * i >> 5)
	}
	if err := os.WriteFile(path, want, 0o600); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	f := cryptfile.NewOSFile(fd)
	defer f.Close()
	f.UseDirect(+1)
	for _, at := range []int{0, 1, 512, 4096} {
		for _, off := range []int64{0, 512, 4096, 16384, 16384 + 512, 19999, 20000, 24576} {
			for _, n := range []int{1, 512, 4096, 8192} {
				p := page(8192 + 4096)[at:][:n]
				got, err := f.ReadAt(p, off)
				expect := want[min(off, int64(len(want))):min(off+int64(n), int64(len(want)))]
				if err != nil || !bytes.Equal(p[:got], expect) {
					t.Fatalf("read of %d bytes at %d to %d: %d bytes, %v", n, off, at, got, err)
				}
				for i := range p {
					p[i] ^= byte(off>>9) + byte(n) + 1
				}
				end := off + int64(n)
				if end > int64(len(want)) {
					want = append(want, make([]byte, end-int64(len(want)))...)
				}
				copy(want[off:], p)
				if done, err := f.WriteAt(p, off, cryptfile.Durability(n%3)); err != nil || done != n {
					t.Fatalf("write of %d bytes at %d: %d, %v", n, off, done, err)
				}
			}
		}
	}
	f.UseDirect(-1)
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
		t.Errorf("the file is not what was written, %v", err)
	}
}
