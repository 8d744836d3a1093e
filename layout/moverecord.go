package layout

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
)

// A move takes one file to another form or DEK while the file is in use (docs/on-disk-format.md,
// "Moves"): from the backing file S to the backing file D, downwards, and cuts S off behind it.

// MoveKind is what S and D are.
type MoveKind uint8

// The kinds.
const (
	MoveEncrypt MoveKind = 1 + iota // S in clear, D encrypted: D is the carrier
	MoveDecrypt                     // S encrypted, D in clear: S is the carrier
	MoveDeep                        // both encrypted, under two DEKs: D is the carrier
)

// String is "encrypt", "decrypt" or "deep".
func (k MoveKind) String() string {
	switch k {
	case MoveEncrypt:
		return "encrypt"
	case MoveDecrypt:
		return "decrypt"
	case MoveDeep:
		return "deep"
	default:
		return fmt.Sprintf("kind %d", uint8(k))
	}
}

// Sizes and places of the records, in bytes from the start of the carrier. Each record has a block
// of its own, whose other bytes are 0.
const (
	RecordSize    = 512
	RecordBlock   = 4096
	RecordAOffset = 4096
	RecordBOffset = 8192
)

// AllInSource is the watermark that says: S holds the whole content, and D counts for nothing.
const AllInSource = -1 // stored as 2^64 - 1

// recordMagic is the first 8 bytes of a record.
const recordMagic = "\x89VMCMOVE"

// Offsets in a record. Integers are little-endian.
const (
	atRecordVersion   = 8
	atRecordKind      = 10
	atRecordGoal      = 11
	atRecordZero1     = 12 // 4 bytes
	atRecordSequence  = 16
	atRecordMove      = 24
	atRecordCarrier   = 40
	atRecordCompanion = 56
	atRecordWatermark = 72
	atRecordZero2     = 80                       // 400 bytes
	atRecordMAC       = RecordSize - sha256.Size // 480
)

// MoveRecord is how far a move has come.
type MoveRecord struct {
	Kind      MoveKind
	Back      bool   // the move's goal is S again
	Sequence  uint64 // from 1; of two proven records the higher one counts
	Move      FileID // the mark of the carrier
	Carrier   FileID // file id
	Companion FileID // file id; zero where the companion is in clear
	// Watermark is a logical offset in bytes, a multiple of UnitSize, or AllInSource: the content
	// below lies in S, the content from there on in D.
	Watermark int64
	MAC       [32]byte // over AuthenticatedBytes, under the carrier's DEK
}

// DecodeRecord decodes a record. Errors are ErrIllFormed (no record at all), ErrUnsupported and
// ErrDamaged, wrapped with the field. The record is untrusted until the MAC is checked.
func DecodeRecord(b []byte) (*MoveRecord, error) {
	if len(b) != RecordSize || !strings.HasPrefix(string(b), recordMagic) {
		return nil, fmt.Errorf("move record: %w", ErrIllFormed)
	}
	le := binary.LittleEndian
	if v := le.Uint16(b[atRecordVersion:]); v != 1 {
		return nil, fmt.Errorf("move record of version %d: %w", v, ErrUnsupported)
	}
	if !AllZero(b[atRecordZero1:atRecordSequence]) || !AllZero(b[atRecordZero2:atRecordMAC]) || b[atRecordGoal] > 1 {
		return nil, fmt.Errorf("move record: reserved bytes in use: %w", ErrUnsupported)
	}
	r := &MoveRecord{
		Kind:      MoveKind(b[atRecordKind]),
		Back:      b[atRecordGoal] == 1,
		Sequence:  le.Uint64(b[atRecordSequence:]),
		Move:      FileID(b[atRecordMove:]),
		Carrier:   FileID(b[atRecordCarrier:]),
		Companion: FileID(b[atRecordCompanion:]),
		Watermark: int64(le.Uint64(b[atRecordWatermark:])),
		MAC:       [32]byte(b[atRecordMAC:]),
	}
	if err := r.check(); err != nil {
		return nil, fmt.Errorf("move record: %w: %w", ErrDamaged, err)
	}
	return r, nil
}

// check returns the first value that no move writes.
func (r *MoveRecord) check() error {
	switch {
	case r.Kind < MoveEncrypt || r.Kind > MoveDeep:
		return fmt.Errorf("%v", r.Kind)
	case r.Sequence == 0:
		return fmt.Errorf("sequence 0")
	case r.Move == FileID{}:
		return fmt.Errorf("no id")
	case (r.Kind == MoveDeep) != (r.Companion != FileID{}):
		return fmt.Errorf("%v with companion %v", r.Kind, r.Companion)
	case r.Watermark != AllInSource && (r.Watermark < 0 || r.Watermark > MaxLogical || r.Watermark%UnitSize != 0):
		return fmt.Errorf("watermark %d", uint64(r.Watermark))
	}
	return nil
}

// AppendRecord appends r, RecordSize bytes, to b.
func (r *MoveRecord) AppendRecord(b []byte) []byte {
	b = append(b, r.AuthenticatedBytes()...)
	return append(b, r.MAC[:]...)
}

// AuthenticatedBytes returns the bytes covered by MAC: 0…479 of the record.
func (r *MoveRecord) AuthenticatedBytes() []byte {
	le := binary.LittleEndian
	p := slices.Grow([]byte(nil), RecordSize)[:atRecordMAC]
	copy(p, recordMagic)
	le.PutUint16(p[atRecordVersion:], 1)
	p[atRecordKind] = byte(r.Kind)
	if r.Back {
		p[atRecordGoal] = 1
	}
	le.PutUint64(p[atRecordSequence:], r.Sequence)
	copy(p[atRecordMove:], r.Move[:])
	copy(p[atRecordCarrier:], r.Carrier[:])
	copy(p[atRecordCompanion:], r.Companion[:])
	le.PutUint64(p[atRecordWatermark:], uint64(r.Watermark))
	return p
}
