package integration

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"vmcryptfs/integration/mounttest"
)

// maxModel bounds the model's files in bytes: a few units more than two 16 KiB kernel folios, so
// every kind of edge is near.
const maxModel = 40 << 10

// twin is one file on the mount and its double in a plain directory of ext4. The double gets the
// same system calls and is the standard.
type twin struct {
	d     *datastore
	plain string // directory of the double
	name  string
	fd    [2]int // mount, double
	flags int    // of the last open: 0 or O_DIRECT
	ops   int
}

// TestModel runs random sequences of system calls on the mount and on plain ext4. After each
// call, sizes and bytes are equal; at the end BACKING decrypts to the same bytes.
func TestModel(t *testing.T) {
	t.Parallel()
	d := newDatastore(t)
	plain := t.TempDir()
	var sequences, ops int
	rapid.Check(t, func(rt *rapid.T) {
		sequences++
		w := &twin{d: d, plain: plain, name: fmt.Sprintf("model-%d.img", sequences)}
		w.open(rt, os.O_CREATE, 0)
		defer func() { w.close(rt); ops += w.ops }()
		rt.Repeat(map[string]func(*rapid.T){
			"":           w.check,
			"write":      w.write,
			"append":     w.append,
			"overwrite":  w.writeAligned,
			"truncate":   w.truncate,
			"punch":      func(rt *rapid.T) { w.fallocate(rt, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE) },
			"zero":       func(rt *rapid.T) { w.fallocate(rt, unix.FALLOC_FL_ZERO_RANGE) },
			"zero-keep":  func(rt *rapid.T) { w.fallocate(rt, unix.FALLOC_FL_ZERO_RANGE|unix.FALLOC_FL_KEEP_SIZE) },
			"alloc":      func(rt *rapid.T) { w.fallocate(rt, 0) },
			"alloc-keep": func(rt *rapid.T) { w.fallocate(rt, unix.FALLOC_FL_KEEP_SIZE) },
			"copy":       w.copyRange,
			"sync":       w.sync,
			"reopen":     w.reopen,
			"remount":    w.remount,
		})
		w.decrypt(rt)
	})
	t.Logf("model: %d sequences, %d operations", sequences, ops)
}

// offset draws positions on or beside the edges of cipher blocks, units, pages and of the file.
func (w *twin) offset(rt *rapid.T, label string) int64 {
	edge := rapid.SampledFrom([]int64{0, 16, 512, 1024, 4096, 8192, 16384, w.size(rt)}).Draw(rt, label+" edge")
	beside := rapid.SampledFrom([]int64{0, 0, -1, 1, -15, 15, 16, -16, 17, 511, -511, 512, 513, 4096, 4097}).Draw(rt, label+" beside")
	return min(max(edge+beside, 0), maxModel)
}

// extent draws an offset and a length of at least 1.
func (w *twin) extent(rt *rapid.T) (off, n int64) {
	a, b := w.offset(rt, "from"), w.offset(rt, "to")
	if a == b {
		b++
	}
	return min(a, b), max(a, b) - min(a, b)
}

func (w *twin) write(rt *rapid.T) {
	off, n := w.extent(rt)
	w.pwrite(rt, off, fill(rt, n))
}

func (w *twin) append(rt *rapid.T) {
	n := rapid.SampledFrom([]int64{1, 15, 16, 17, 511, 512, 513, 4096}).Draw(rt, "n")
	if w.size(rt)+n <= maxModel {
		w.pwrite(rt, w.size(rt), fill(rt, n))
	}
}

// writeAligned writes whole units, as a guest does.
func (w *twin) writeAligned(rt *rapid.T) {
	off := rapid.Int64Range(0, maxModel/unitSize-1).Draw(rt, "unit") * unitSize
	n := rapid.SampledFrom([]int64{1, 2, 3, 8, 9}).Draw(rt, "units") * unitSize
	w.pwrite(rt, off, fill(rt, min(n, maxModel-off)))
}

// fill makes n bytes different from every other call's, with zeros among them now and then:
// written zeros are not a hole, but read like a hole.
func fill(rt *rapid.T, n int64) []byte {
	b := aligned(int(n))
	seed := rapid.Byte().Draw(rt, "seed")
	for i := range b {
		b[i] = seed ^ byte(i*31+i>>8)
	}
	if seed%8 == 0 {
		clear(b)
	}
	return b
}

// aligned returns memory accepted by O_DIRECT everywhere.
func aligned(n int) []byte {
	b := make([]byte, n+4096)
	skip := -uintptr(unsafe.Pointer(&b[0])) & 4095
	return b[skip:][:n:n]
}

func (w *twin) pwrite(rt *rapid.T, off int64, b []byte) {
	w.both(rt, fmt.Sprintf("pwrite %d at %d", len(b), off), func(i int) error {
		defer w.buffered(i)()
		n, err := unix.Pwrite(w.fd[i], b, off)
		if err == nil && n != len(b) {
			err = fmt.Errorf("%d bytes written", n)
		}
		return err
	})
}

// buffered removes O_DIRECT from the double until the returned function is called: ext4 refuses
// requests not aligned to its sectors, and the double is about bytes alone.
func (w *twin) buffered(i int) func() {
	if i == 0 || w.flags == 0 {
		return func() {}
	}
	_, _ = unix.FcntlInt(uintptr(w.fd[i]), unix.F_SETFL, 0)
	return func() { _, _ = unix.FcntlInt(uintptr(w.fd[i]), unix.F_SETFL, w.flags) }
}

func (w *twin) truncate(rt *rapid.T) {
	n := w.offset(rt, "length")
	w.both(rt, fmt.Sprintf("ftruncate %d", n), func(i int) error { return unix.Ftruncate(w.fd[i], n) })
}

func (w *twin) fallocate(rt *rapid.T, mode uint32) {
	off, n := w.extent(rt)
	w.both(rt, fmt.Sprintf("fallocate %#x %d at %d", mode, n, off), func(i int) error {
		return unix.Fallocate(w.fd[i], mode, off, n)
	})
}

func (w *twin) copyRange(rt *rapid.T) {
	from, n := w.extent(rt)
	to := w.offset(rt, "target")
	n = min(n, maxModel-to)
	if n <= 0 || from < to+n && to < from+n {
		return // overlapping ranges are EINVAL everywhere
	}
	w.both(rt, fmt.Sprintf("copy_file_range %d from %d to %d", n, from, to), func(i int) error {
		defer w.buffered(i)()
		for src, dst, left := from, to, n; left > 0; {
			done, err := unix.CopyFileRange(w.fd[i], &src, w.fd[i], &dst, int(left), 0)
			if err != nil || done == 0 {
				return err
			}
			left -= int64(done)
		}
		return nil
	})
}

func (w *twin) sync(rt *rapid.T) {
	w.both(rt, "fdatasync", func(i int) error { return unix.Fdatasync(w.fd[i]) })
}

func (w *twin) reopen(rt *rapid.T) {
	w.close(rt)
	w.open(rt, 0, rapid.SampledFrom([]int{0, unix.O_DIRECT}).Draw(rt, "flags"))
}

// remount is rare: a remount takes longer than a hundred other steps.
func (w *twin) remount(rt *rapid.T) {
	if rapid.IntRange(0, 15).Draw(rt, "die") != 0 {
		return
	}
	w.close(rt)
	w.d.Remount()
	w.open(rt, 0, w.flags)
}

// both does one thing on the mount and on the double; both must give the same error.
func (w *twin) both(rt *rapid.T, what string, do func(i int) error) {
	w.ops++
	got := mounttest.Uninterrupted(func() error { return do(0) })
	want := mounttest.Uninterrupted(func() error { return do(1) })
	if !errors.Is(got, want) {
		rt.Fatalf("%s: %v on the mount, %v on ext4", what, got, want)
	}
}

func (w *twin) paths() [2]string {
	return [2]string{w.d.Path(w.name), filepath.Join(w.plain, w.name)}
}

func (w *twin) open(rt *rapid.T, create, flags int) {
	w.flags = flags
	for i, path := range w.paths() {
		fd, err := mounttest.Open(path, unix.O_RDWR|create|flags, 0o644)
		if err != nil {
			rt.Fatalf("open %s: %v", path, err)
		}
		w.fd[i] = fd
	}
}

func (w *twin) close(rt *rapid.T) {
	for i, fd := range w.fd {
		if err := unix.Close(fd); err != nil {
			rt.Errorf("close %d: %v", i, err)
		}
	}
}

func (w *twin) size(rt *rapid.T) int64 {
	var st unix.Stat_t
	if err := unix.Fstat(w.fd[1], &st); err != nil {
		rt.Fatal(err)
	}
	return st.Size
}

// check compares sizes, bytes (through the descriptor in use and through a fresh buffered one)
// and the claims of SEEK_HOLE.
func (w *twin) check(rt *rapid.T) {
	paths := w.paths()
	want, err := os.ReadFile(paths[1])
	if err != nil {
		rt.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(w.fd[0], &st); err != nil || st.Size != int64(len(want)) {
		rt.Fatalf("fstat on the mount: size %d (%v), want %d", st.Size, err, len(want))
	}
	fresh, err := os.ReadFile(paths[0])
	if err != nil {
		rt.Fatal(err)
	}
	wantSame(rt, "a new descriptor", fresh, want)
	got := aligned(maxModel + 4096)
	n, err := readFull(w.fd[0], got)
	if err != nil {
		rt.Fatalf("pread: %v", err)
	}
	wantSame(rt, "the open descriptor", got[:n], want)
	w.checkHoles(rt, want)
}

func readFull(fd int, b []byte) (n int, err error) {
	for n < len(b) {
		m, err := unix.Pread(fd, b[n:], int64(n))
		if err != nil || m == 0 {
			return n, err
		}
		n += m
	}
	return n, nil
}

// checkHoles: the mount's holes are zeros. (Which ranges are holes differs by file system; no
// hole may contain data.)
func (w *twin) checkHoles(rt *rapid.T, want []byte) {
	for at := int64(0); at < int64(len(want)); {
		data, err := unix.Seek(w.fd[0], at, unix.SEEK_DATA)
		if err == unix.ENXIO {
			data = int64(len(want))
		} else if err != nil {
			rt.Fatalf("SEEK_DATA from %d: %v", at, err)
		}
		if data < at || data > int64(len(want)) || !zero(want[at:data]) {
			rt.Fatalf("SEEK_DATA from %d gives %d: not all zeros before it (size %d)", at, data, len(want))
		}
		if data == int64(len(want)) {
			return
		}
		hole, err := unix.Seek(w.fd[0], data, unix.SEEK_HOLE)
		if err != nil || hole <= data || hole > int64(len(want)) {
			rt.Fatalf("SEEK_HOLE from %d gives %d (%v), size %d", data, hole, err, len(want))
		}
		at = hole
	}
}

// decrypt compares BACKING, read by the independent decryptor, with the double.
func (w *twin) decrypt(rt *rapid.T) {
	want, err := os.ReadFile(w.paths()[1])
	if err != nil {
		rt.Fatal(err)
	}
	p, done, err := w.d.openBacking(w.name)
	if err != nil {
		rt.Fatalf("decrypt %s: %v", w.name, err)
	}
	defer done()
	got, err := p.all()
	if err != nil {
		rt.Fatalf("decrypt %s: %v", w.name, err)
	}
	wantSame(rt, "BACKING decrypted", got, want)
}

// wantSame fails with the place of the first difference.
func wantSame(tb rapid.TB, what string, got, want []byte) {
	if bytes.Equal(got, want) {
		return
	}
	at := 0
	for at < min(len(got), len(want)) && got[at] == want[at] {
		at++
	}
	end := func(b []byte) []byte { return b[at:min(at+16, len(b))] }
	tb.Fatalf("%s: %d bytes, want %d; first difference at %d (unit %d + %d): %x, want %x",
		what, len(got), len(want), at, at/unitSize, at%unitSize, end(got), end(want))
}
