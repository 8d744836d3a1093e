package fs

import (
	"encoding/binary"
	"math"
	"os"
	"strconv"
)

// Offsets in directories are BACKING's own, of 63 bits on ext4 and XFS. C libraries of 32 bits
// without large-file support refuse a list with an offset of more than 31 bits (EOVERFLOW). ext4
// recognizes such callers, and gives them hashes of 32 bits; here each of their handles numbers the
// long offsets.

// mostNarrow bounds the numbered offsets of a handle; later offsets are given as they are.
const mostNarrow = 1 << 17

// narrowOffsets are the numbers of a handle's offsets. Numbers count down from the greatest of 31
// bits, since BACKING's own offsets may be small as well. A number stays the same until the handle
// is closed: seekdir(3) finds its way after entries came and went.
type narrowOffsets struct {
	offs  []uint64 // offset number i at i
	known map[uint64]uint64
}

// show is the offset off as the process pid sees it. s.mu is held.
func (s *listing) show(off uint64, pid uint32) uint64 {
	if off <= math.MaxInt32-mostNarrow { // too small for one of the numbers
		return off
	}
	if !s.asked {
		s.asked = true
		if isNarrow(pid) {
			s.narrow = &narrowOffsets{known: make(map[uint64]uint64)}
		}
	}
	if s.narrow == nil {
		return off
	}
	return s.narrow.show(off)
}

func (x *narrowOffsets) show(off uint64) uint64 {
	i, known := x.known[off]
	if !known {
		if len(x.offs) >= mostNarrow {
			return off
		}
		i = uint64(len(x.offs))
		x.known[off] = i
		x.offs = append(x.offs, off)
	}
	return math.MaxInt32 - i
}

// meant is the offset of BACKING that was shown as off. s.mu is held.
func (s *listing) meant(off uint64) uint64 {
	if s.narrow == nil || off > math.MaxInt32 || math.MaxInt32-off >= uint64(len(s.narrow.offs)) {
		return off
	}
	return s.narrow.offs[math.MaxInt32-off]
}

// isNarrow reports whether a process is a 32-bit program. isNarrow reads the auxiliary vector: to
// read the program's file could mean a request to this mount, or to a lost server.
func isNarrow(pid uint32) bool {
	f, err := os.Open("/proc/" + strconv.FormatUint(uint64(pid), 10) + "/auxv")
	if err != nil {
		return false
	}
	defer f.Close()
	b := make([]byte, 1024)
	n, err := f.Read(b)
	return err == nil && isNarrowVector(b[:n])
}

// isNarrowVector reports whether an auxiliary vector is one of pairs of 32 bits: AT_PHENT, the size
// of an ELF program header, differs between the widths.
func isNarrowVector(b []byte) bool {
	const phent, size32, size64 = 4, 32, 56
	narrow := false
	for i := 0; i+8 <= len(b); i += 8 {
		if i%16 == 0 && i+16 <= len(b) &&
			binary.NativeEndian.Uint64(b[i:]) == phent && binary.NativeEndian.Uint64(b[i+8:]) == size64 {
			return false
		}
		if binary.NativeEndian.Uint32(b[i:]) == phent && binary.NativeEndian.Uint32(b[i+4:]) == size32 {
			narrow = true
		}
	}
	return narrow
}
