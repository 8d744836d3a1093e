package layout

import (
	"fmt"
	"math"
)

const (
	// UnitSize is the size of a data unit in bytes: the granule of encryption, of
	// holes and of locking.
	UnitSize = 512
	// DataOffset is the stored offset of data unit 0.
	DataOffset = 1 << 20
	// MaxLogical is the greatest logical length in bytes for a growing file. The stored form has
	// a unit to spare below the greatest int64.
	MaxLogical = 1<<63 - 1 - DataOffset - 2*UnitSize
)

// StoredLen is L(n): the stored data length in bytes, without the header, of logical length n.
// The caller checks n where n enters. StoredLen panics when n is negative or too great for any
// backing file; no result of LogicalLen is.
func StoredLen(n int64) int64 {
	const greatest = math.MaxInt64 - DataOffset // stored data length
	switch {
	case n < 0 || n > greatest || n%UnitSize != 0 && n > greatest-UnitSize:
		panic(fmt.Sprintf("layout: logical length %d out of range", n))
	case n%UnitSize == 0:
		return n
	default:
		return n + UnitSize
	}
}

// LogicalLen decodes a stored data length s (backing size - DataOffset), in bytes. ok is false
// when s is below one unit and no multiple of a unit: then the length is 0, and the file is set
// to DataOffset before the next write or growth. The same holds for a negative s, which a file
// shorter than the header gives; with the magic, such a file is damage, and the caller has
// checked that first.
func LogicalLen(s int64) (n int64, ok bool) {
	switch {
	case s < 0:
		return 0, false
	case s%UnitSize == 0:
		return s, true
	case s < UnitSize:
		return 0, false
	default:
		return s - UnitSize, true
	}
}
