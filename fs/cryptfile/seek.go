package cryptfile

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"vmcryptfs/layout"
)

// Seek is lseek(2) with SEEK_DATA or SEEK_HOLE: ENXIO past the end, or where no data
// follows. A hole is one of BACKING; the end of the file is one too. Other values of
// whence give EINVAL.
func (f *File) Seek(off int64, whence int) (int64, error) {
	if whence != unix.SEEK_DATA && whence != unix.SEEK_HOLE {
		return 0, unix.EINVAL
	}
	f.ending.RLock()
	defer f.ending.RUnlock()
	if f.closed.Load() {
		return 0, os.ErrClosed
	}
	size := f.size.Load()
	if off < 0 || off >= size {
		return 0, unix.ENXIO
	}
	if whence == unix.SEEK_HOLE {
		at, err := f.seekHole(floor(off), size)
		return min(max(at, off), size), err
	}
	at, err := f.seekStored(floor(off), whence)
	if err != nil {
		return 0, err
	}
	if at = floor(at); at >= size { // a unit with a byte of data is data
		return 0, unix.ENXIO
	}
	return max(at, off), nil
}

// seekHole returns the first boundary of units at or after off where a hole of at least one unit
// begins, or size or more. As a rule BACKING's granule of holes is greater than a unit; otherwise
// a hole that begins inside a unit may end there too.
func (f *File) seekHole(off, size int64) (int64, error) {
	for off < size {
		at, err := f.seekStored(off, unix.SEEK_HOLE)
		if errors.Is(err, unix.ENXIO) { // cut off meanwhile
			return size, nil
		}
		if err != nil {
			return 0, err
		}
		if off = ceil(at); off == at {
			break
		}
	}
	return off, nil
}

// seekStored is lseek of the backing file in logical offsets.
func (f *File) seekStored(off int64, whence int) (int64, error) {
	at, err := f.store().Seek(layout.DataOffset+off, whence)
	if err != nil {
		return 0, fmt.Errorf("seek from %d: %w", off, err)
	}
	return at - layout.DataOffset, nil
}
