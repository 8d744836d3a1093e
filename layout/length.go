package layout

const (
	// UnitSize is the size of a data unit in bytes: the granule of encryption, of
	// holes and of locking.
	UnitSize = 512
	// DataOffset is the stored offset of data unit 0.
	DataOffset = 1 << 20
	// MaxLogical is the greatest logical length in bytes.
	MaxLogical = 1<<63 - 1 - DataOffset - 2*UnitSize
)

// StoredLen is L(n): the stored data length, without the header, of logical length n.
func StoredLen(n int64) int64 { panic("layout: not built yet") }

// LogicalLen decodes a stored data length s (backing size - DataOffset). ok is
// false when s is below one unit and no multiple of it: the length then is 0 and
// the file is set to DataOffset before it is written or grown.
func LogicalLen(s int64) (n int64, ok bool) { panic("layout: not built yet") }
