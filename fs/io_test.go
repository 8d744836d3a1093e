package fs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"vmcryptfs/byname"
	"vmcryptfs/fs/content"
	"vmcryptfs/fs/cryptfile"
)

func TestAppendFromTwoOpeners(t *testing.T) {
	r := newRig(t, nil)
	for _, name := range names {
		var f [2]*os.File
		for i := range f {
			var err error
			f[i], err = os.OpenFile(r.path(name), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
			if err != nil {
				t.Fatal(err)
			}
			defer f[i].Close()
		}
		var want strings.Builder
		for i := range 50 {
			line := fmt.Sprintf("line %d\n", i)
			want.WriteString(line)
			if _, err := f[i%2].WriteString(line); err != nil {
				t.Fatal(err)
			}
		}
		r.wantRead(name, want.String())
	}
}

// TestMixedHandles: buffered, direct and mapped access to one file see one another.
func TestMixedHandles(t *testing.T) {
	r := newRig(t, nil)
	for _, name := range []string{"a.log", "b.qcow2"} {
		r.write(name, strings.Repeat("a", 16384))
		buffered := r.open(name, os.O_RDWR)
		direct := r.open(name, os.O_RDWR|unix.O_DIRECT)
		m, err := unix.Mmap(int(direct.Fd()), 0, 16384, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Munmap(m)
		p := aligned(4096)
		fill := func(c byte) {
			for i := range p {
				p[i] = c
			}
		}
		expect := func(what string, f *os.File, off int64, want byte) {
			t.Helper()
			fill(0)
			if _, err := f.ReadAt(p, off); err != nil || p[0] != want || p[4095] != want {
				t.Errorf("%s: %s reads %q, want %q (%v)", name, what, p[0], want, err)
			}
		}
		expect("buffered", buffered, 0, 'a')
		fill('b')
		if _, err := direct.WriteAt(p, 0); err != nil {
			t.Fatal(err)
		}
		expect("buffered after a direct write", buffered, 0, 'b')
		var shown [1]byte
		if err := copyMapped(shown[:], m); err != nil || shown[0] != 'b' {
			t.Errorf("%s: the mapping shows %q after a direct write (%v)", name, shown, err)
		}
		if err := copyMapped(m[4096:], bytes.Repeat([]byte("c"), 4096)); err != nil {
			t.Fatal(err)
		}
		if err := unix.Msync(m, unix.MS_SYNC); err != nil {
			t.Fatal(err)
		}
		expect("direct after a mapped write", direct, 4096, 'c')
		fill('d')
		if _, err := buffered.WriteAt(p, 8192); err != nil {
			t.Fatal(err)
		}
		expect("direct after a buffered write", direct, 8192, 'd')
		// Not aligned to anything a disk has.
		if _, err := direct.WriteAt([]byte("odd"), 12345); err != nil {
			t.Errorf("%s: unaligned direct write: %v", name, err)
		}
	}
}

// copyMapped is copy where one of the two lies in a mapping of the mount; at most a page is copied. A
// pipe has the pages touched by system calls alone. This process serves the mount, so to wait for a
// page would be for ever when the runtime stops the world meanwhile: to the runtime, a page fault is
// no system call.
func copyMapped(to, from []byte) error {
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		return err
	}
	defer unix.Close(pipe[0])
	defer unix.Close(pipe[1])
	n := min(len(to), len(from))
	if _, err := unix.Write(pipe[1], from[:n]); err != nil {
		return err
	}
	_, err := unix.Read(pipe[0], to[:n])
	return err
}

func aligned(n int) []byte {
	p, err := unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		panic(err)
	}
	return p
}

func TestDurableWrites(t *testing.T) {
	r := newRig(t, nil)
	for _, name := range names {
		for _, flag := range []int{unix.O_DSYNC, unix.O_SYNC, unix.O_DSYNC | unix.O_DIRECT} {
			f, err := os.OpenFile(r.path(name), os.O_CREATE|os.O_RDWR|flag, 0o644)
			if err != nil {
				t.Fatal(err)
			}
			p := aligned(4096)
			copy(p, "durable")
			if _, err := f.WriteAt(p, 0); err != nil {
				t.Errorf("%s, flags %#x: %v", name, flag, err)
			}
			f.Close()
		}
		if got := r.read(name); !strings.HasPrefix(got, "durable") {
			t.Errorf("%s: %.10q", name, got)
		}
	}
}

// TestPageCacheAfterForeignChange: a write of others to BACKING, while no handle of the file was
// open, is seen at the next open.
func TestPageCacheAfterForeignChange(t *testing.T) {
	r := newRig(t, nil)
	r.write("a.log", "ours")
	for i, text := range []string{"new!", "old!", "ours"} {
		r.wantRead("a.log", r.read("a.log"))
		r.plant("a.log", text)
		// So that the test does not depend on the steps of this kernel's clock.
		at := time.Unix(int64(i+1), 0)
		if err := os.Chtimes(r.under("a.log"), at, at); err != nil {
			t.Fatal(err)
		}
		r.wantRead("a.log", text)
	}
}

// TestSparse: holes stay holes, in both forms, and are found.
func TestSparse(t *testing.T) {
	r := newRig(t, nil)
	for _, name := range []string{"a.log", "b.qcow2"} {
		f, err := os.Create(r.path(name))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		const mib = 1 << 20
		if err := f.Truncate(64 * mib); err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt(bytes.Repeat([]byte("x"), 4096), 16*mib); err != nil {
			t.Fatal(err)
		}
		seek := func(off int64, whence int, want int64) {
			t.Helper()
			got, err := unix.Seek(int(f.Fd()), off, whence)
			if err != nil || got != want {
				t.Errorf("%s: seek %d from %d: %d, %v, want %d", name, whence, off, got, err, want)
			}
		}
		seek(0, unix.SEEK_DATA, 16*mib)
		seek(16*mib, unix.SEEK_HOLE, 16*mib+4096)
		seek(0, unix.SEEK_HOLE, 0)
		if _, err := unix.Seek(int(f.Fd()), 32*mib, unix.SEEK_DATA); err != unix.ENXIO {
			t.Errorf("%s: data past the last: %v", name, err)
		}
		var st unix.Stat_t
		if err := unix.Fstat(int(f.Fd()), &st); err != nil || st.Blocks > 256 {
			t.Errorf("%s: %d blocks, %v", name, st.Blocks, err)
		}
		if err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 16*mib, 4096); err != nil {
			t.Fatal(err)
		}
		if _, err := unix.Seek(int(f.Fd()), 0, unix.SEEK_DATA); err != unix.ENXIO {
			t.Errorf("%s: data after punching all: %v", name, err)
		}
		for _, mode := range []uint32{unix.FALLOC_FL_COLLAPSE_RANGE, unix.FALLOC_FL_INSERT_RANGE, unix.FALLOC_FL_PUNCH_HOLE} {
			err := unix.Fallocate(int(f.Fd()), mode, 0, 4096)
			wantErrno(t, fmt.Sprintf("fallocate mode %#x", mode), err, unix.EOPNOTSUPP)
		}
		if err := unix.Fallocate(int(f.Fd()), 0, 64*mib, 8192); err != nil {
			t.Fatal(err)
		}
		if st, err := f.Stat(); err != nil || st.Size() != 64*mib+8192 {
			t.Errorf("%s: size %d after allocating past the end, %v", name, st.Size(), err)
		}
	}
}

// TestCopyFileRange between all pairs of forms, and within one file.
func TestCopyFileRange(t *testing.T) {
	r := newRig(t, nil)
	text := strings.Repeat("0123456789abcdef", 200<<10/16)
	for _, from := range []string{"a.log", "a.qcow2"} {
		r.write(from, text)
		for _, to := range []string{"b.log", "b.qcow2", "b.vmdk"} {
			r.write(to, "head of the file that is there: ")
			src, err := os.Open(r.path(from))
			if err != nil {
				t.Fatal(err)
			}
			dst, err := os.OpenFile(r.path(to), os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			in, out := int64(5), int64(20)
			for in < int64(len(text)) {
				n, err := unix.CopyFileRange(int(src.Fd()), &in, int(dst.Fd()), &out, len(text), 0)
				if err != nil || n == 0 {
					t.Fatalf("%s to %s at %d: %d, %v", from, to, in, n, err)
				}
			}
			src.Close()
			dst.Close()
			r.wantRead(to, "head of the file tha"+text[5:])
		}
	}
	// Into a descriptor: encrypted before the bytes are there.
	r.write("c.vmdk", descriptor)
	r.wantForm("c.vmdk", "clear")
	if err := copyRange(r.path("a.log"), r.path("c.vmdk"), 16384); err != nil {
		t.Fatal(err)
	}
	r.wantForm("c.vmdk", "encrypted")
	r.wantRead("c.vmdk", text[:16384])
}

func copyRange(from, to string, n int) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.OpenFile(to, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer dst.Close()
	_, err = unix.CopyFileRange(int(src.Fd()), nil, int(dst.Fd()), nil, n, 0)
	return err
}

func TestUnlinkedOpenFile(t *testing.T) {
	r := newRig(t, nil)
	for _, name := range names {
		f, err := os.Create(r.path(name))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if err := os.Remove(r.path(name)); err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteString("still here"); err != nil {
			t.Fatal(err)
		}
		if err := f.Sync(); err != nil {
			t.Fatal(err)
		}
		if err := unix.Fchmod(int(f.Fd()), 0o600); err != nil {
			t.Errorf("%s: chmod: %v", name, err)
		}
		again, err := os.OpenFile(byname.ProcPath(int(f.Fd())), os.O_RDWR, 0)
		if err != nil {
			t.Fatalf("%s: reopen: %v", name, err)
		}
		if got, err := io.ReadAll(again); err != nil || string(got) != "still here" {
			t.Errorf("%s: %q, %v", name, got, err)
		}
		again.Close()
	}
}

// TestSpecialFiles can be made, and used by the kernel.
func TestSpecialFiles(t *testing.T) {
	r := newRig(t, nil)
	if err := unix.Mknod(r.path("null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))); err != nil {
		t.Fatal(err)
	}
	r.write("null", "gone")
	r.wantRead("null", "")
	if err := unix.Mknod(r.path("file"), unix.S_IFREG|0o644, 0); err != nil {
		t.Fatal(err)
	}
	r.wantForm("file", "encrypted")
	if err := os.MkdirAll(filepath.Join(r.mnt, "d/e/f"), 0o755); err != nil {
		t.Fatal(err)
	}
	wantErrno(t, "rmdir", unix.Rmdir(r.path("d")), unix.ENOTEMPTY)
	if err := os.RemoveAll(r.path("d")); err != nil {
		t.Fatal(err)
	}
}

// halfway is content in which a write ends with an error, and with part of the bytes written, or
// none.
type halfway struct {
	content.Content
	lost *cryptfile.SyncFailure
	done int
	err  error
}

func (h *halfway) WriteAt([]byte, int64, cryptfile.Durability) (int, error) { return h.done, h.err }
func (h *halfway) Sync(cryptfile.Durability) error                          { return nil }

// TestOnlyWhatWasToldIsTold: a durable write that met a loss tells its handle of the loss if the
// answer was the loss, and not if part of the write was done, or the write failed by itself.
func TestOnlyWhatWasToldIsTold(t *testing.T) {
	r := newRig(t, nil)
	r.write("a.log", "x")
	r.idle()
	r.open("a.log", os.O_RDWR)
	fh := anyHandle(t, r.fs)
	h := r.fs.handles.get(fh)
	file, own := h.node.file, h.node.file.Content
	serve := func(c content.Content) {
		h.node.Mu.Lock()
		defer h.node.Mu.Unlock()
		file.Content = c
	}
	defer serve(own)
	for _, c := range []struct {
		halfway
		want error // of the next fsync
	}{
		{halfway{Content: own, done: 512, err: unix.EIO}, unix.EINVAL},
		{halfway{Content: own, err: unix.EPERM}, unix.EINVAL},
		{halfway{Content: own, err: unix.EINVAL}, nil},
	} {
		c.lost = refusesSync(t).SyncFailure()
		serve(&c.halfway)
		in := &fuse.WriteIn{Fh: fh, Flags: unix.O_DSYNC}
		n, status := raw{r.fs}.Write(nil, in, make([]byte, 1024))
		if told := status != fuse.OK; int(n) != c.done || told != (n == 0) {
			t.Errorf("%d, %v: the write is answered with %d, %v", c.done, c.err, n, status)
		}
		if err := h.sync(cryptfile.Data); err != c.want {
			t.Errorf("%d, %v: fsync after it: %v, want %v", c.done, c.err, err, c.want)
		}
	}
}

func (h *halfway) SyncFailure() *cryptfile.SyncFailure { return h.lost }

// refusesSync is a backing file that refused to sync: EINVAL.
func refusesSync(t *testing.T) *cryptfile.OSFile {
	t.Helper()
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	b := cryptfile.NewOSFile(p[1])
	t.Cleanup(func() { _ = errors.Join(b.Close(), unix.Close(p[0])) })
	if err := b.Sync(cryptfile.Data); err != unix.EINVAL {
		t.Fatalf("Sync: %v, want EINVAL", err)
	}
	return b
}
