package integration

import (
	"bytes"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"vmcryptfs/integration/mounttest"
)

// offset draws a position in [0, limit], often on or beside an edge of a unit or page.
func (x *fsx) offset(limit int) int {
	at := x.rnd.IntN(limit + 1)
	switch x.rnd.IntN(4) {
	case 0:
		at &^= unitSize - 1
	case 1:
		at = at&^(os.Getpagesize()-1) + x.rnd.IntN(3) - 1
	}
	return min(max(at, 0), limit)
}

// extent draws a range of at least one byte ending at limit or before.
func (x *fsx) extent(limit int) (off, n int) {
	off = min(x.offset(limit), limit-1)
	most := min(limit-off, 1<<x.rnd.IntN(17))
	return off, 1 + x.rnd.IntN(most)
}

// fill makes n bytes in memory aligned for O_DIRECT.
func (x *fsx) fill(n int) []byte {
	b := aligned(n)
	first := x.rnd.Uint32()
	for i := range b {
		b[i] = byte((first + uint32(i)*2654435761) >> 24)
	}
	return b
}

// resize gives the model another length.
func (x *fsx) resize(n int) {
	if n > len(x.want) {
		x.want = append(x.want, make([]byte, n-len(x.want))...)
	}
	x.want = x.want[:n]
}

// put is a write to the model.
func (x *fsx) put(off int, b []byte) {
	x.resize(max(len(x.want), off+len(b)))
	copy(x.want[off:], b)
}

func (x *fsx) pwrite(fd, off int, b []byte) {
	x.t.Helper()
	n, err := unix.Pwrite(fd, b, int64(off))
	if err != nil || n != len(b) {
		x.fatalf("%d bytes written, want %d: %v", n, len(b), err)
	}
	x.put(off, b)
}

func (x *fsx) write() {
	off, n := x.extent(fsxMax)
	x.note("write %d at %d", n, off)
	x.pwrite(x.fd[0], off, x.fill(n))
}

// writeDirect writes whole units through the descriptor with O_DIRECT.
func (x *fsx) writeDirect() {
	off, n := x.extent(fsxMax - unitSize)
	off &^= unitSize - 1
	n = (n + unitSize - 1) &^ (unitSize - 1)
	x.note("direct write %d at %d", n, off)
	x.pwrite(x.fd[1], off, x.fill(n))
}

// store writes to the mapping, and syncs the mapping now and then.
func (x *fsx) store() {
	if len(x.want) == 0 {
		return
	}
	off, n := x.extent(len(x.want))
	synced := x.rnd.IntN(16) == 0
	x.note("store %d at %d (msync %v)", n, off, synced)
	b := x.fill(n)
	copy(x.shared[off:], b)
	x.put(off, b)
	if synced {
		x.must(unix.Msync(x.shared, unix.MS_SYNC))
	}
}

func (x *fsx) truncate() {
	n := x.offset(fsxMax)
	x.note("truncate from %d to %d", len(x.want), n)
	if x.rnd.IntN(2) == 0 {
		x.must(unix.Ftruncate(x.fd[x.rnd.IntN(2)], int64(n)))
	} else {
		x.must(unix.Truncate(x.d.Path(x.name), int64(n)))
	}
	x.resize(n)
}

func (x *fsx) fallocate(mode uint32, off, n int) {
	x.t.Helper()
	fd := x.fd[x.rnd.IntN(2)]
	x.must(mounttest.Uninterrupted(func() error { return unix.Fallocate(fd, mode, int64(off), int64(n)) }))
}

// zeros punches or zeroes a range.
func (x *fsx) zeros(mode uint32) {
	off, n := x.extent(fsxMax)
	x.note("fallocate %#x %d at %d, size %d", mode, n, off, len(x.want))
	x.fallocate(mode, off, n)
	if mode&unix.FALLOC_FL_KEEP_SIZE == 0 {
		x.resize(max(len(x.want), off+n))
	}
	if off < len(x.want) {
		clear(x.want[off:min(off+n, len(x.want))])
	}
}

func (x *fsx) allocate(mode uint32) {
	off, n := x.extent(fsxMax)
	x.note("fallocate %#x %d at %d, size %d", mode, n, off, len(x.want))
	x.fallocate(mode, off, n)
	if mode == 0 {
		x.resize(max(len(x.want), off+n))
	}
}

// refused: moving the units of a file would require new encryption of all of them.
func (x *fsx) refused(mode uint32) {
	page := int64(os.Getpagesize())
	x.note("fallocate %#x", mode)
	if err := unix.Fallocate(x.fd[0], mode, page, page); err != unix.EOPNOTSUPP {
		x.fatalf("fallocate %#x: %v, want EOPNOTSUPP", mode, err)
	}
}

// copyRange copies inside the file between descriptors.
func (x *fsx) copyRange() {
	if len(x.want) == 0 {
		return
	}
	from, n := x.extent(len(x.want))
	to, _ := x.extent(fsxMax)
	n = min(n, fsxMax-to)
	if from < to+n && to < from+n {
		return // overlapping ranges are EINVAL everywhere
	}
	in, out := x.rnd.IntN(2), x.rnd.IntN(2)
	if from%unitSize != 0 || to%unitSize != 0 || n%unitSize != 0 {
		in, out = 0, 0
	}
	x.note("copy_file_range %d from %d to %d, size %d", n, from, to, len(x.want))
	for src, dst, end := int64(from), int64(to), int64(to+n); dst < end; {
		done, err := unix.CopyFileRange(x.fd[in], &src, x.fd[out], &dst, int(end-dst), 0)
		if err != nil || done == 0 {
			x.fatalf("copy_file_range at %d: %d bytes, %v", dst, done, err)
		}
	}
	x.put(to, bytes.Clone(x.want[from:from+n]))
}

// appendTo writes through a third descriptor, with O_APPEND.
func (x *fsx) appendTo() {
	n := 1 + x.rnd.IntN(9000)
	if len(x.want)+n > fsxMax {
		return
	}
	x.note("append %d to %d", n, len(x.want))
	fd, err := mounttest.Open(x.d.Path(x.name), unix.O_WRONLY|unix.O_APPEND, 0)
	x.must(err)
	x.pwrite(fd, len(x.want), x.fill(n))
	x.must(unix.Close(fd))
}

func (x *fsx) sync() {
	x.note("sync")
	if x.rnd.IntN(2) == 0 {
		x.must(unix.Fsync(x.fd[0]))
	} else {
		x.must(unix.Fdatasync(x.fd[1]))
	}
}

// drop lets the kernel forget the pages, so the next read asks the daemon. (The kernel keeps
// dirty pages, so drop writes them first, which takes no sync of BACKING.)
func (x *fsx) drop() {
	x.note("drop pages")
	const write = unix.SYNC_FILE_RANGE_WAIT_BEFORE | unix.SYNC_FILE_RANGE_WRITE | unix.SYNC_FILE_RANGE_WAIT_AFTER
	x.must(unix.SyncFileRange(x.fd[0], 0, 0, write))
	x.must(unix.Madvise(x.shared, unix.MADV_DONTNEED))
	x.must(unix.Fadvise(x.fd[0], 0, 0, unix.FADV_DONTNEED))
}

func (x *fsx) reopen() {
	x.close()
	x.open(0)
}

// describe makes the file a VMDK descriptor: of class inspect, the file turns clear at a flush,
// and encrypted again by the next step.
func (x *fsx) describe() {
	text := []byte("# Disk DescriptorFile\nversion=1\nCID=fffffffe\n" + strings.Repeat("# line\n", x.rnd.IntN(500)))
	x.note("descriptor of %d", len(text))
	x.must(unix.Ftruncate(x.fd[0], 0))
	x.resize(0)
	x.pwrite(x.fd[0], 0, text)
	x.must(unix.Fsync(x.fd[0]))
}
