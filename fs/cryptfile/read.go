package cryptfile

import (
	"golang.org/x/sys/unix"

	"vmcryptfs/layout"
)

// ReadAt fills p from off; n < len(p) with a nil error only at the end of file. Bytes of p after
// the first n are zero or untouched, never padding. A p that reaches to the end of the last unit
// lets the last unit be read in place too.
func (f *File) ReadAt(p []byte, off int64) (n int, err error) {
	return f.read(p, off, (*File).readUnits)
}

// PeekAt is ReadAt without an access time.
func (f *File) PeekAt(p []byte, off int64) (n int, err error) {
	return f.read(p, off, (*File).peekUnits)
}

func (f *File) read(p []byte, off int64, units reading) (n int, err error) {
	if off < 0 {
		return 0, unix.EINVAL
	}
	if len(p) == 0 || off >= f.size.Load() {
		return 0, nil
	}
	// off is before the end of a file, so the sum below cannot overflow.
	end := off + min(int64(len(p)), layout.MaxLogical-off)
	h, err := f.lock(off, end, true)
	if err != nil {
		return 0, err
	}
	defer f.locks.Release(h)
	end = min(end, f.size.Load())
	if off >= end {
		return 0, nil
	}
	return f.load(p, off, int(end-off), units)
}

// load reads n bytes, all before the end of file, to p, under a hold on the bytes' units.
func (f *File) load(p []byte, off int64, n int, units reading) (int, error) {
	size := ceil(off+int64(n)) - floor(off) // bytes of the units read
	switch {
	case aligned(off) && size <= int64(len(p)):
		return f.loadInPlace(p[:size], off, n, units)
	case size <= bounceSize:
		return f.loadBounced(p[:n], off, units)
	}
	if head := ceil(off) - off; head > 0 {
		return f.loadParts(p, off, n, int(head), units)
	}
	return f.loadParts(p, off, n, n-n%layout.UnitSize, units)
}

// loadParts is load in two parts.
func (f *File) loadParts(p []byte, off int64, n, first int, units reading) (int, error) {
	done, err := f.load(p[:first], off, first, units)
	if err != nil {
		return done, err
	}
	rest, err := f.load(p[done:], off+int64(done), n-done, units)
	return done + rest, err
}

// loadInPlace reads as many units as p is long, for n bytes requested.
func (f *File) loadInPlace(p []byte, off int64, n int, units reading) (int, error) {
	if err := units(f, p, off); err != nil {
		clear(p)
		return 0, err
	}
	clear(p[n:]) // padding
	return n, nil
}

// loadBounced fills p by way of a buffer of whole units.
func (f *File) loadBounced(p []byte, off int64, units reading) (int, error) {
	bounce := f.borrow()
	defer f.bounce.Put(bounce)
	first := floor(off)
	b := bounce[:ceil(off+int64(len(p)))-first]
	if err := units(f, b, first); err != nil {
		return 0, err
	}
	return copy(p, b[off-first:]), nil
}
