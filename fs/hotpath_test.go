package fs

import (
	"os"
	"strings"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// handleThat is the number of the one open file for which that is true.
func handleThat(t testing.TB, f *FS, that func(*handle) bool) uint64 {
	t.Helper()
	f.handles.mu.RLock()
	defer f.handles.mu.RUnlock()
	for fh, h := range f.handles.open {
		if h.dir == nil && that(h) {
			return fh
		}
	}
	t.Fatal("no such file is open")
	return 0
}

// anyHandle is the number of the one open file.
func anyHandle(t testing.TB, f *FS) uint64 {
	t.Helper()
	return handleThat(t, f, func(*handle) bool { return true })
}

// TestHotPathAllocatesNothing: READ and WRITE of whole units, in both forms.
func TestHotPathAllocatesNothing(t *testing.T) {
	for _, name := range []string{"a.log", "b.qcow2"} {
		r := newRig(t, nil)
		r.write(name, strings.Repeat("x", 16384))
		r.idle()
		f, err := os.OpenFile(r.path(name), os.O_RDWR|unix.O_DIRECT, 0)
		if err != nil {
			t.Fatal(err)
		}
		fh := anyHandle(t, r.fs)
		fsys := r.fs.Raw()
		p := make([]byte, 4096)
		read := &fuse.ReadIn{Fh: fh, Offset: 4096, Size: 4096}
		write := &fuse.WriteIn{Fh: fh, Offset: 4096, Size: 4096}
		status := fuse.OK
		reads := testing.AllocsPerRun(100, func() {
			if _, s := fsys.Read(nil, read, p); s != fuse.OK {
				status = s
			}
		})
		writes := testing.AllocsPerRun(100, func() {
			if _, s := fsys.Write(nil, write, p); s != fuse.OK {
				status = s
			}
		})
		if status != fuse.OK || reads != 0 || writes != 0 {
			t.Errorf("%s: %v allocations for a read, %v for a write; %v", name, reads, writes, status)
		}
		f.Close()
	}
}

// TestOnTmpfs: another kind of BACKING, where there is no zero-range and other offsets in
// directories.
func TestOnTmpfs(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=256m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Errorf("unmount %s: %v", dir, err)
		}
	})
	r := newRigAt(t, dir, nil)
	r.write("a.vmdk", descriptor)
	r.wantForm("a.vmdk", "clear")
	if err := os.Rename(r.path("a.vmdk"), r.path("a.qcow2")); err != nil {
		t.Fatal(err)
	}
	r.wantForm("a.qcow2", "encrypted")
	r.wantRead("a.qcow2", descriptor)
	f, err := os.OpenFile(r.path("b.qcow2"), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(1 << 20); err != nil {
		t.Fatal(err)
	}
	if got, err := unix.Seek(int(f.Fd()), 0, unix.SEEK_HOLE); err != nil || got != 0 {
		t.Errorf("hole at %d, %v", got, err)
	}
	entries, err := os.ReadDir(r.mnt)
	if err != nil || len(entries) != 2 {
		t.Errorf("entries: %v, %v", entries, err)
	}
	f.Close()
	r.unmount()
}
