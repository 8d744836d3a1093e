package cryptfile

import (
	"vmcryptfs/layout"
)

// WriteAt writes p at off and grows the file as needed. Encryption is in place: p is noise
// afterwards. After a failed write the first n bytes are stored, and the bytes behind are
// unchanged; the size is at most the greater of the old size and off + n.
func (f *File) WriteAt(p []byte, off int64, d Durability) (n int, err error) {
	end, err := extent(off, int64(len(p)))
	if err != nil || len(p) == 0 {
		return 0, err
	}
	h, err := f.lockWrite(off, end)
	if err != nil {
		return 0, err
	}
	defer f.locks.Release(h)
	if end > f.size.Load() {
		return f.extend(p, off, d)
	}
	return f.put(p, off, f.size.Load(), d)
}

// extend writes p past the end of file, under a hold without end.
func (f *File) extend(p []byte, off int64, d Durability) (int, error) {
	old, end := f.size.Load(), off+int64(len(p))
	if err := f.mendLength(); err != nil {
		return 0, err
	}
	if !aligned(old) || !aligned(end) {
		// The stored length of a file with a tail is longer than its data. Data before the length
		// would pass through stored lengths that decode as longer than end.
		if err := f.grow(end); err != nil {
			return 0, err
		}
	}
	n, err := f.put(p, off, old, d)
	if err != nil {
		f.retract(old, off, n)
		return n, err
	}
	f.size.Store(end)
	return n, nil
}

// retract gives a file the size needed by the first n bytes after an extending write failed:
// growth before the data, and bytes torn past the old end, go away.
func (f *File) retract(old, off int64, n int) {
	size := old
	if n > 0 {
		size = max(old, off+int64(n))
	}
	if f.size.Load() > size && f.shrink(size) == nil {
		return
	}
	f.size.Store(size)
	f.tailClean = false
	f.stored.Store(stray)
	f.mendLength() // the next operation that mends the length reports an error here
}

// put encrypts and stores p at off under a hold on the units. old is the size before the write:
// units from there on are not read, since they are holes.
func (f *File) put(p []byte, off, old int64, d Durability) (int, error) {
	end := off + int64(len(p))
	switch {
	case aligned(off) && aligned(end):
		return f.writeUnits(p, off, d)
	case ceil(end)-floor(off) <= bounceSize:
		return f.putBounced(p, off, old, d)
	}
	if head := ceil(off) - off; head > 0 {
		return f.putParts(p, off, old, int(head), d)
	}
	return f.putParts(p, off, old, len(p)-len(p)%layout.UnitSize, d)
}

// putParts is put in two parts, each as durable as the whole: a synced write syncs only its own
// range.
func (f *File) putParts(p []byte, off, old int64, first int, d Durability) (int, error) {
	done, err := f.put(p[:first], off, old, d)
	if err != nil {
		return done, err
	}
	rest, err := f.put(p[done:], off+int64(done), old, d)
	return done + rest, err
}

// putBounced stores p together with the surrounding bytes of the edge units.
func (f *File) putBounced(p []byte, off, old int64, d Durability) (int, error) {
	bounce := f.borrow()
	defer f.bounce.Put(bounce)
	first, end := floor(off), off+int64(len(p))
	b := bounce[:ceil(end)-first]
	if err := f.readEdges(b, off, end, old); err != nil {
		return 0, err
	}
	copy(b[off-first:], p)
	n, err := f.writeUnits(b, first, d)
	if err != nil {
		return int(min(max(first+int64(n)-off, 0), int64(len(p)))), err
	}
	return len(p), nil
}

// readEdges prepares b, the units of [off, end), for the data between: the first and the last
// unit are read where they hold other bytes of the file of size old, else zeroed. A tail written
// up to the end of file gets new, zero padding without a read.
func (f *File) readEdges(b []byte, off, end, old int64) error {
	const unit = layout.UnitSize
	first, last := floor(off), floor(end-1)
	readFirst := off > first && first < old
	readLast := end < min(last+unit, old)
	if readFirst && readLast && len(b) <= 8*unit {
		return f.peekUnits(b, first) // one call costs less than two small ones
	}
	clear(b[:unit])
	clear(b[len(b)-unit:])
	if readFirst || readLast && last == first {
		if err := f.peekUnits(b[:unit], first); err != nil {
			return err
		}
	}
	if readLast && last > first {
		return f.peekUnits(b[len(b)-unit:], last)
	}
	return nil
}
