package layout

import "errors"

const (
	SlotSize    = 4096
	SlotAOffset = 0
	SlotBOffset = 512 << 10
	MaxLockers  = 8
	LockerSize  = 480
)

// Magic is the first 8 bytes of an encrypted file.
const Magic = "\x89VMCRYPT"

// Why a header does not count; ask with errors.Is.
var (
	ErrIllFormed   = errors.New("header slot is not well-formed") // length, magic or SHA-256
	ErrDamaged     = errors.New("header is damaged")
	ErrUnsupported = errors.New("made by a newer version of vmcryptfs")
)

// FileID identifies an encrypted file (a random UUID v4); String is its RFC 9562 form.
type FileID [16]byte

func (id FileID) String() string { panic("layout: not built yet") }

// Header is one header slot. Reserved fields are zero in every Header that
// DecodeSlot returns, so AppendSlot gives back the same bytes.
type Header struct {
	Generation uint64 // from 1
	FileID     FileID
	Lockers    [MaxLockers]Locker
	MAC        [32]byte // over AuthenticatedBytes, under the DEK
}

// Locker is a DEK wrapped for one KEK. An unknown Wrap keeps its bytes as they are.
type Locker struct {
	Wrap     uint8 // 0 empty, 1 under a KMIP KEK
	Provider string
	KeyID    string
	KCV      [16]byte // key check value of the KEK
	Nonce    [12]byte
	Wrapped  [80]byte // wrapped DEK (64) and GCM tag (16)
	raw      []byte   // LockerSize bytes of an unknown wrap, else nil
}

// WrapKMIP is the Wrap under a KMIP KEK.
const WrapKMIP = 1

// HasMagic tells if b, the first bytes of a file, begins with Magic.
func HasMagic(b []byte) bool { panic("layout: not built yet") }

// DecodeSlot reads one slot: ErrIllFormed, ErrUnsupported or ErrDamaged (wrapped
// with the field and its value) or a header.
func DecodeSlot(b []byte) (*Header, error) { panic("layout: not built yet") }

// AppendSlot encodes h with its SHA-256 to b. It panics over a provider name or
// key identifier that ValidNames refuses.
func (h *Header) AppendSlot(b []byte) []byte { panic("layout: not built yet") }

// ValidNames checks a provider name and key identifier for a locker: 1…64 and
// 1…256 bytes of UTF-8 without control characters.
func ValidNames(provider, keyID string) error { panic("layout: not built yet") }

// AuthenticatedBytes are bytes 0…3903 of the slot: what MAC covers.
func (h *Header) AuthenticatedBytes() []byte { panic("layout: not built yet") }

// WrapAAD is the additional data of the wrap of locker i: header bytes 0…15 ∥
// 24…63 ∥ locker bytes 0…19 ∥ 112…479.
func (h *Header) WrapAAD(i int) []byte { panic("layout: not built yet") }

// Slot names one of the two header slots.
type Slot uint8

const (
	SlotA Slot = iota
	SlotB
)

func (s Slot) Offset() int64 { panic("layout: not built yet") }

// Slots is what the two slots of a file hold together.
type Slots struct {
	Header *Header // the one that counts
	Which  Slot
	// NextWrite is the slot a header update writes first: the ill-formed one, else
	// the older one, else B.
	NextWrite Slot
	// Differ tells that the slots do not hold the same bytes: a header update was
	// cut off. Rekey and an open for writing copy the counting slot over the other.
	Differ bool
}

// ChooseSlot decides which slot counts (design §3).
func ChooseSlot(a, b []byte) (Slots, error) { panic("layout: not built yet") }
