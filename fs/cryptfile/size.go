package cryptfile

import (
	"fmt"

	"vmcryptfs/layout"
)

// Truncate sets the logical size.
func (f *File) Truncate(n int64) error {
	if _, err := extent(0, n); err != nil {
		return err
	}
	h, err := f.lockTail(n)
	if err != nil {
		return err
	}
	defer f.locks.Release(h)
	switch old := f.size.Load(); {
	case n > old:
		return f.grow(n)
	case n < old:
		return f.shrink(n)
	default:
		return f.setLength(n) // the times change, as by ftruncate(2)
	}
}

// grow sets a greater size, under a hold without end. The remaining part of the old tail is clean
// and durable before any byte of the tail can come to light, so a crash after the new length
// finds zeros there.
func (f *File) grow(n int64) error {
	if err := f.mendLength(); err != nil {
		return err
	}
	if err := f.cleanTail(); err != nil {
		return err
	}
	if err := f.setLength(n); err != nil {
		return err
	}
	f.tailClean = true // the tail's unit was clean or is a hole, and so are the units after
	return nil
}

// shrink sets a lesser size, under a hold without end. Where whole units fall away and n lies
// inside a unit, the backing file is first cut at the end of that unit. A file system may store
// the zeroed rest of a block before the length; with the new length lost, the unit would be half
// noise.
func (f *File) shrink(n int64) error {
	old := f.size.Load()
	if err := f.mendLength(); err != nil {
		return err
	}
	f.tailClean = false // the padding will be the bytes cut off by n
	if aligned(n) || ceil(n) >= old {
		return f.setLength(n)
	}
	if err := f.storeLength(ceil(n)); err != nil {
		return err
	}
	err := f.setLength(n)
	if err != nil {
		f.size.Store(ceil(n))
	}
	return err
}

// setLength gives the backing file the length for size n, and makes size n.
func (f *File) setLength(n int64) error {
	if err := f.storeLength(n); err != nil {
		return err
	}
	f.size.Store(n)
	f.stored.Store(agreed)
	return nil
}

// storeLength gives the backing file the length for size n.
func (f *File) storeLength(n int64) error {
	if err := f.store().Truncate(layout.DataOffset + layout.StoredLen(n)); err != nil {
		return fmt.Errorf("set size %d: %w", n, err)
	}
	return nil
}

// mendLength makes the stored length agree with size after a disagreement: after Open of a file with
// a foreign length, or after a failed change that could not be taken back. mendLength needs a hold
// without end. Units may fall away, as in shrink.
func (f *File) mendLength() error {
	if f.stored.Load() == agreed {
		return nil
	}
	n := f.size.Load()
	err := f.storeLength(ceil(n))
	if err == nil {
		err = f.setLength(n)
	}
	if err != nil {
		f.stored.Store(stray)
	}
	return err
}

// mendTail is mendLength for a caller without a hold.
func (f *File) mendTail() error {
	h, err := f.lockTail(f.size.Load())
	if err != nil {
		return err
	}
	defer f.locks.Release(h)
	return f.mendLength()
}

// cleanTail zeroes the padding of the last unit and the spill after, durably, unless both are
// known to be clean. cleanTail needs a hold without end. Both may hold anything: data from before
// a shrink or of a crash, or foreign bytes.
func (f *File) cleanTail() error {
	n := f.size.Load()
	if aligned(n) || f.tailClean {
		return nil
	}
	if err := f.scrub(floor(n), n%layout.UnitSize); err != nil {
		f.tailDoubt = true
		return fmt.Errorf("clean the end of the file at %d: %w", n, err)
	}
	f.tailClean, f.tailDoubt = true, false
	return nil
}

// scrub is cleanTail for the unit at logical offset off, with used bytes of the file; as many
// bytes are spill. Zeros are not written again, so a hole stays a hole, unless a sync was
// refused. Zeros are still synced: they may be in the page cache alone.
func (f *File) scrub(off, used int64) error {
	var unit, spill [layout.UnitSize]byte
	if err := f.peekUnits(unit[:], off); err != nil {
		return err
	}
	if f.tailDoubt || !layout.AllZero(unit[used:]) {
		clear(unit[used:])
		if _, err := f.writeUnits(unit[:], off, Volatile); err != nil {
			return err
		}
	}
	at := layout.DataOffset + off + layout.UnitSize
	n, err := PeekAt(f.store(), spill[:used], at)
	if err != nil {
		return err
	}
	if f.tailDoubt || !layout.AllZero(spill[:n]) {
		clear(spill[:])
		if _, err := f.store().WriteAt(spill[:used], at, Volatile); err != nil {
			return err
		}
	}
	return f.store().Sync(Data)
}
