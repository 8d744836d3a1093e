package cryptfile

import (
	"fmt"

	"golang.org/x/sys/unix"

	"vmcryptfs/fs/rangelock"
	"vmcryptfs/layout"
)

// Punch makes [off, off+n) a hole; the size stays.
func (f *File) Punch(off, n int64) error {
	end, err := allocExtent(off, n)
	if err != nil {
		return err
	}
	h, err := f.lock(off, end, false)
	if err != nil {
		return err
	}
	defer f.locks.Release(h)
	return f.blank(off, min(end, f.size.Load()), f.punchUnits)
}

// Zero makes [off, off+n) zeros with space allocated; the size grows unless keepSize.
func (f *File) Zero(off, n int64, keepSize bool) error {
	end, err := allocExtent(off, n)
	if err != nil {
		return err
	}
	h, err := f.lockAlloc(off, end, keepSize)
	if err != nil {
		return err
	}
	defer f.locks.Release(h)
	size := f.size.Load()
	if end > size {
		if err := f.reserve(off, end); err != nil {
			return err
		}
	}
	if err := f.blank(off, min(end, size), f.zeroUnits); err != nil {
		return err
	}
	if end > size && !keepSize {
		return f.grow(end)
	}
	return nil
}

// Allocate reserves space for [off, off+n); the size grows unless keepSize.
func (f *File) Allocate(off, n int64, keepSize bool) error {
	end, err := allocExtent(off, n)
	if err != nil {
		return err
	}
	h, err := f.lockAlloc(off, end, keepSize)
	if err != nil {
		return err
	}
	defer f.locks.Release(h)
	if err := f.reserve(off, end); err != nil {
		return err
	}
	if end > f.size.Load() && !keepSize {
		return f.grow(end)
	}
	return nil
}

// allocExtent is extent for fallocate(2), which refuses an empty range.
func allocExtent(off, n int64) (end int64, err error) {
	if n == 0 {
		return 0, unix.EINVAL
	}
	return extent(off, n)
}

func (f *File) lockAlloc(off, end int64, keepSize bool) (*rangelock.Hold, error) {
	if keepSize {
		return f.lock(off, end, false)
	}
	return f.lockWrite(off, end)
}

// blank makes [off, end), inside the file, zeros, under a hold on the units: whole units by
// calling whole, parts of units by writing. A last unit to be zeroed up to the end of file counts
// as a whole one.
func (f *File) blank(off, end int64, whole func(off, n int64) error) error {
	if off >= end {
		return nil
	}
	from, to := ceil(off), floor(end)
	if end == f.size.Load() {
		to = ceil(end)
	}
	if from > to {
		return f.blankPart(off, end)
	}
	if off < from {
		if err := f.blankPart(off, from); err != nil {
			return err
		}
	}
	if from < to {
		if err := whole(from, to-from); err != nil {
			return err
		}
	}
	if to < end {
		return f.blankPart(to, end)
	}
	return nil
}

// blankPart zeroes [off, end), a part of one unit. Zeros are not written again.
func (f *File) blankPart(off, end int64) error {
	bounce := f.borrow()
	defer f.bounce.Put(bounce)
	unit, first := bounce[:layout.UnitSize], floor(off)
	if err := f.peekUnits(unit, first); err != nil {
		return err
	}
	part := unit[off-first : end-first]
	if layout.AllZero(part) {
		return nil
	}
	clear(part)
	_, err := f.writeUnits(unit, first, Volatile)
	return err
}

// punchUnits makes holes of whole units.
func (f *File) punchUnits(off, n int64) error {
	err := f.store().Fallocate(unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, layout.DataOffset+off, n)
	if unsupported(err) {
		return f.writeHoles(off, n)
	}
	return wrapRange("punch", off, n, err)
}

// zeroUnits makes whole units holes with reserved space. Where BACKING cannot do so in one step
// (tmpfs), the units are punched and reserved.
func (f *File) zeroUnits(off, n int64) error {
	at := layout.DataOffset + off
	err := f.store().Fallocate(unix.FALLOC_FL_ZERO_RANGE|unix.FALLOC_FL_KEEP_SIZE, at, n)
	if unsupported(err) {
		err = f.store().Fallocate(unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, at, n)
		if err == nil {
			err = f.store().Fallocate(unix.FALLOC_FL_KEEP_SIZE, at, n)
		}
	}
	if unsupported(err) {
		return f.writeHoles(off, n)
	}
	return wrapRange("zero", off, n, err)
}

// writeHoles stores zeros in whole units: stored zeros are a hole.
func (f *File) writeHoles(off, n int64) error {
	bounce := f.borrow()
	defer f.bounce.Put(bounce)
	clear(bounce[:])
	for n > 0 {
		b := bounce[:min(n, bounceSize)]
		if _, err := f.store().WriteAt(b, layout.DataOffset+off, Volatile); err != nil {
			return wrapRange("write zeros to", off, n, err)
		}
		off, n = off+int64(len(b)), n-int64(len(b))
	}
	return nil
}

// reserve gives the units of [off, end) space; content and size stay.
func (f *File) reserve(off, end int64) error {
	from, n := floor(off), ceil(end)-floor(off)
	err := f.store().Fallocate(unix.FALLOC_FL_KEEP_SIZE, layout.DataOffset+from, n)
	return wrapRange("allocate", from, n, err)
}

// unsupported reports whether BACKING does not know a mode of fallocate.
func unsupported(err error) bool { return err == unix.EOPNOTSUPP || err == unix.ENOSYS }

func wrapRange(what string, off, n int64, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s %d bytes of data units at %d: %w", what, n, off, err)
}
