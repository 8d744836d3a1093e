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
	// MaxLogical is the greatest logical length in bytes that a file is grown to: its
	// stored form, with a unit to spare, still has an int64 for a length.
	MaxLogical = 1<<63 - 1 - DataOffset - 2*UnitSize
)

// StoredLen is L(n): the stored data length, without the header, of logical length n.
// n is the caller's to check where it enters: StoredLen panics when n is negative or
// so great that no backing file could hold it, which no result of LogicalLen is.
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

// LogicalLen decodes a stored data length s (backing size - DataOffset). ok is
// false when s is below one unit and no multiple of it: the length then is 0 and
// the file is set to DataOffset before it is written or grown. A negative s, which
// a file shorter than its header gives, is such a length too; with the magic it is
// damage, and the caller has seen that first.
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
