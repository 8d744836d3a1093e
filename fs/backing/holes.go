package backing

import (
	"errors"

	"golang.org/x/sys/unix"

	"vmcryptfs/fs/cryptfile"
	"vmcryptfs/layout"
)

// Holes counts the bytes of found.Size that the examined file b has as holes.
func (found *Found) Holes(b cryptfile.Backing) (int64, error) {
	var begin int64
	if found.Slots.Header != nil {
		begin = layout.DataOffset
	}
	return holes(b, begin, begin+found.Size)
}

// holes counts the bytes in [from, to) of b that lie in holes. What lies beyond the end of b is a
// hole.
func holes(b cryptfile.Backing, from, to int64) (int64, error) {
	var total int64
	for from < to {
		data, err := b.Seek(from, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return total + to - from, nil
		}
		if err != nil {
			return 0, err
		}
		total += min(data, to) - from
		if from, err = b.Seek(data, unix.SEEK_HOLE); err != nil {
			return 0, err
		}
	}
	return total, nil
}
