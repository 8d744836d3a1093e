package layout

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
)

// Sizes and places of the header, in bytes from the start of the backing file.
const (
	SlotSize    = 4096
	SlotAOffset = 0
	SlotBOffset = 512 << 10
	MaxLockers  = 8
	LockerSize  = 480
)

// Magic is the first 8 bytes of an encrypted file.
const Magic = "\x89VMCRYPT"

// Offsets in a header slot (docs/on-disk-format.md, "Header slot"). Integers are
// little-endian.
const (
	atVersion    = 8
	atCipher     = 10
	atFlags      = 12
	atGeneration = 16
	atFileID     = 24
	atDataOffset = 40
	atReserved1  = 44 // 20 bytes
	atLockers    = 64
	atMAC        = atLockers + MaxLockers*LockerSize // 3904
	atMark       = atMAC + 32                        // 3936
	atReserved2  = atMark + 16                       // 112 bytes
	atSum        = SlotSize - sha256.Size            // 4064
)

const (
	version1     = 1
	cipherXTS256 = 1 // XTS-AES-256, 512-byte data unit
)

// Why a header does not count; ask with errors.Is. The three exclude one another.
var (
	ErrIllFormed   = errors.New("header slot is not well-formed") // length, magic or SHA-256
	ErrDamaged     = errors.New("header is damaged")
	ErrUnsupported = errors.New("made by a newer version of vmcryptfs")
)

// Header is one header slot. DecodeSlot returns Headers with reserved fields zero, so AppendSlot
// gives back the same bytes. A Header is a value: no method writes anything shared with a copy.
type Header struct {
	Generation uint64 // from 1
	FileID     FileID
	Lockers    [MaxLockers]Locker
	Mark       FileID   // id of the move whose carrier the file is; zero: the file is whole
	MAC        [32]byte // over AuthenticatedBytes, under the DEK
}

// HasMagic reports whether b, the first bytes of a file, begins with Magic.
func HasMagic(b []byte) bool { return bytes.HasPrefix(b, []byte(Magic)) }

// WellFormed reports whether b is a header slot by length, magic and SHA-256. The content and the
// origin of the slot stay unproven.
func WellFormed(b []byte) bool { return illFormed(b) == nil }

// illFormed returns ErrIllFormed, with the reason, unless the slot is well-formed.
func illFormed(b []byte) error {
	switch {
	case len(b) != SlotSize:
		return fmt.Errorf("%w: %d bytes of %d", ErrIllFormed, len(b), SlotSize)
	case !HasMagic(b):
		return fmt.Errorf("%w: magic % x", ErrIllFormed, b[:len(Magic)])
	case sha256.Sum256(b[:atSum]) != [sha256.Size]byte(b[atSum:]):
		return fmt.Errorf("%w: SHA-256 does not match", ErrIllFormed)
	}
	return nil
}

// DecodeSlot decodes one slot. Errors are ErrIllFormed, ErrUnsupported and ErrDamaged, wrapped
// with the field and the field's value. The header keeps no reference to b, and is untrusted
// until the MAC is checked.
func DecodeSlot(b []byte) (*Header, error) {
	if err := illFormed(b); err != nil {
		return nil, err
	}
	if generation(b) == 0 {
		return nil, fmt.Errorf("%w: generation 0", ErrDamaged)
	}
	return decode(b)
}

// decode decodes a well-formed slot that counts. Errors are ErrUnsupported and ErrDamaged.
func decode(b []byte) (*Header, error) {
	if err := judge(b); err != nil {
		return nil, err
	}
	h := &Header{
		Generation: generation(b),
		FileID:     fileID(b),
		Mark:       FileID(b[atMark:]),
		MAC:        [32]byte(b[atMAC:]),
	}
	for i := range h.Lockers {
		l, err := decodeLocker(lockerBytes(b, i))
		if err != nil {
			return nil, fmt.Errorf("%w: locker %d: %w", ErrDamaged, i, err)
		}
		h.Lockers[i] = l
	}
	return h, nil
}

// judge finds values unknown to this version. Such values are never damage: a slot with the right
// SHA-256 was written with these values.
func judge(b []byte) error {
	le := binary.LittleEndian
	if v := le.Uint16(b[atVersion:]); v != version1 {
		return fmt.Errorf("version %d: %w", v, ErrUnsupported)
	}
	if v := le.Uint16(b[atCipher:]); v != cipherXTS256 {
		return fmt.Errorf("cipher %d: %w", v, ErrUnsupported)
	}
	if v := le.Uint32(b[atFlags:]); v != 0 {
		return fmt.Errorf("flags %#x: %w", v, ErrUnsupported)
	}
	if v := le.Uint32(b[atDataOffset:]); v != DataOffset {
		return fmt.Errorf("data offset %d: %w", v, ErrUnsupported)
	}
	if !AllZero(b[atReserved1:atLockers]) || !AllZero(b[atReserved2:atSum]) {
		return fmt.Errorf("reserved bytes in use: %w", ErrUnsupported)
	}
	return nil
}

// AppendSlot appends h, encoded with a SHA-256, to b. A provider name or key identifier refused
// by ValidNames makes AppendSlot panic.
func (h *Header) AppendSlot(b []byte) []byte {
	n := len(b)
	b = slices.Grow(b, SlotSize)[:n+SlotSize]
	slot := b[n:]
	clear(slot)
	h.encode(slot)
	copy(slot[atMAC:], h.MAC[:])
	copy(slot[atMark:], h.Mark[:])
	sum := sha256.Sum256(slot[:atSum])
	copy(slot[atSum:], sum[:])
	return b
}

// encode writes bytes 0…3903 of the slot to p, which must be zero.
func (h *Header) encode(p []byte) {
	le := binary.LittleEndian
	copy(p, Magic)
	le.PutUint16(p[atVersion:], version1)
	le.PutUint16(p[atCipher:], cipherXTS256)
	le.PutUint64(p[atGeneration:], h.Generation)
	copy(p[atFileID:], h.FileID[:])
	le.PutUint32(p[atDataOffset:], DataOffset)
	for i := range h.Lockers {
		h.Lockers[i].encode(lockerBytes(p, i))
	}
}

// Marked reports whether the file is the carrier of a move: half of its content may be in the
// companion.
func (h *Header) Marked() bool { return h.Mark != FileID{} }

// AuthenticatedBytes returns the bytes covered by MAC: 0…3903 of the slot, with a mark also
// 3936…4063. It panics as AppendSlot does.
func (h *Header) AuthenticatedBytes() []byte {
	p := h.body()
	if h.Marked() {
		p = append(p, h.Mark[:]...)
		p = append(p, make([]byte, atSum-atReserved2)...)
	}
	return p
}

// body returns bytes 0…3903 of the slot.
func (h *Header) body() []byte {
	p := make([]byte, atMAC, atMAC+atSum-atMark)
	h.encode(p)
	return p
}

// WrapAAD returns the additional data of the wrap of locker i: header bytes 0…15 ∥ 24…63 ∥ locker
// bytes 0…19 ∥ 112…479. Generation, nonce and wrapped key are left out. WrapAAD panics as
// AppendSlot does.
func (h *Header) WrapAAD(i int) []byte {
	p := h.body()
	l := lockerBytes(p, i)
	return slices.Concat(p[:atGeneration], p[atFileID:atLockers], l[:atNonce], l[atProvider:])
}

func generation(slot []byte) uint64 { return binary.LittleEndian.Uint64(slot[atGeneration:]) }

func fileID(slot []byte) FileID { return FileID(slot[atFileID:]) }

func lockerBytes(slot []byte, i int) []byte {
	at := atLockers + i*LockerSize
	return slot[at : at+LockerSize]
}

// AllZero reports whether b holds nothing but zeros.
func AllZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}
