package cryptfile

import (
	"bytes"
	"errors"
	"fmt"
	"math"

	"vmcryptfs/keys"
	"vmcryptfs/layout"
)

// ErrGeneration is the refusal to update a header whose generation is the last one.
var ErrGeneration = errors.New("header generation is used up")

// ReadHeader reads both slots and decides which one counts. Errors are layout's or the backing
// file's. A file that ends inside the header is layout.ErrDamaged. ReadHeader does not decide
// whether b is an encrypted file at all: `export` asks for slot B of a file that no longer looks
// encrypted.
func ReadHeader(b Backing) (layout.Slots, error) {
	size, err := b.Size()
	if err != nil {
		return layout.Slots{}, fmt.Errorf("read header: %w", err)
	}
	if size < layout.DataOffset {
		return layout.Slots{}, fmt.Errorf("%w: backing file of %d bytes ends inside it", layout.ErrDamaged, size)
	}
	slotA, err := readSlot(b, layout.SlotA)
	if err != nil {
		return layout.Slots{}, err
	}
	slotB, err := readSlot(b, layout.SlotB)
	if err != nil {
		return layout.Slots{}, err
	}
	return layout.ChooseSlot(slotA, slotB)
}

// readSlot reads a slot, shorter where the file ends.
func readSlot(b Backing, which layout.Slot) ([]byte, error) {
	p := make([]byte, layout.SlotSize)
	n, err := PeekAt(b, p, which.Offset())
	if err != nil {
		return nil, fmt.Errorf("read header slot %v: %w", which, err)
	}
	return p[:n], nil
}

// IsEncrypted reports whether a backing file is encrypted: at least 1 MiB long, with Magic. A
// shorter file with the magic has neither form: layout.ErrDamaged.
func IsEncrypted(b Backing) (bool, error) {
	size, err := b.Size()
	if err != nil {
		return false, fmt.Errorf("read header: %w", err)
	}
	var magic [len(layout.Magic)]byte
	n, err := PeekAt(b, magic[:], 0)
	switch {
	case err != nil:
		return false, fmt.Errorf("read header: %w", err)
	case !layout.HasMagic(magic[:n]):
		return false, nil
	case size < layout.DataOffset:
		return false, fmt.Errorf("%w: backing file of %d bytes ends inside it", layout.ErrDamaged, size)
	default:
		return true, nil
	}
}

// HasSlotB reports whether a well-formed slot lies at B, whatever lies at A: such a file is never
// served as cleartext.
func HasSlotB(b Backing) (bool, error) {
	slot, err := readSlot(b, layout.SlotB)
	if err != nil {
		return false, err
	}
	return layout.WellFormed(slot), nil
}

// Format writes both slots of h, a sealed header, and the length of an empty file, and syncs: b
// may get its name afterwards. b must not have a name before, for no order of these steps is safe
// to cut off; a file with a name is replaced (Conversion).
func Format(b Backing, h *layout.Header) error {
	if err := writeSlots(b, h); err != nil {
		return err
	}
	if err := b.Truncate(layout.DataOffset); err != nil {
		return fmt.Errorf("set the length of an empty file: %w", err)
	}
	if err := b.Sync(Data); err != nil {
		return fmt.Errorf("sync header: %w", err)
	}
	return nil
}

// writeSlots writes h to both slots, with no sync.
func writeSlots(b Backing, h *layout.Header) error {
	slot := h.AppendSlot(nil)
	for _, which := range []layout.Slot{layout.SlotA, layout.SlotB} {
		if _, err := b.WriteAt(slot, which.Offset(), Volatile); err != nil {
			return fmt.Errorf("write header slot %v: %w", which, err)
		}
	}
	return nil
}

// UpdateHeader writes h, with the generation grown and the MAC set under dek, to both slots in
// the crash-safe order of design §3. s is the result of ReadHeader for the file, not updated
// since. ErrGeneration: there is no next generation.
func UpdateHeader(b Backing, s layout.Slots, h *layout.Header, dek *keys.DEK) error {
	switch {
	case h.FileID != s.Header.FileID:
		return fmt.Errorf("update header of file %s with one of %s", s.Header.FileID, h.FileID)
	case s.Header.Generation == math.MaxUint64:
		return fmt.Errorf("update header of file %s: %w", s.Header.FileID, ErrGeneration)
	}
	h.Generation = s.Header.Generation + 1
	dek.Seal(h)
	if err := evenSlots(b, s); err != nil {
		return err
	}
	if err := writeSlot(b, s.NextWrite, h); err != nil {
		return err
	}
	return writeSlot(b, s.NextWrite.Other(), h)
}

// Mark makes mark the mark of b's header, or takes the mark out if mark is zero, in the crash-safe
// order of UpdateHeader. dek proves the header first. A header that bears mark already is healed.
func Mark(b Backing, dek *keys.DEK, mark layout.FileID) error {
	s, err := ReadHeader(b)
	if err != nil {
		return err
	}
	if err := dek.Verify(s.Header); err != nil {
		return err
	}
	if s.Header.Mark == mark {
		return Heal(b, s)
	}
	next := *s.Header
	next.Mark = mark
	return UpdateHeader(b, s, &next, dek)
}

// Heal copies the counting slot over the other one when the two differ, and syncs. Heal is for a
// file opened for writing, and for rekey.
func Heal(b Backing, s layout.Slots) error {
	if !s.Differ {
		return nil
	}
	if err := evenSlots(b, s); err != nil {
		return err
	}
	return writeSlot(b, s.Which.Other(), s.Header)
}

// refreshed is the number of bytes read anew with the slots: as many as the page cache may keep
// in one piece with the slots (a folio, of at most 2 MiB where pages have 4 KiB).
const refreshed = 2 * layout.DataOffset

// errLost reports that BACKING did not store data accepted before.
var errLost = errors.New("the header on disk is not the one that was written last; it is read anew: try again")

// evenSlots ensures that the slots are on disk as in s, before an update overwrites one of
// them. An update cut off by a kill may have left the counting slot in the page cache alone. So
// may an update whose sync was refused; another sync finds nothing to store then.
func evenSlots(b Backing, s layout.Slots) error {
	if err := b.Sync(Data); err != nil {
		return fmt.Errorf("sync header: %w", err)
	}
	r, ok := b.(Refresher)
	if !ok {
		return nil
	}
	if err := r.Refresh(0, refreshed); err != nil {
		return fmt.Errorf("read header from disk: %w", err)
	}
	stored, err := ReadHeader(b)
	if err != nil {
		return err
	}
	if stored.Which != s.Which || stored.Differ != s.Differ || stored.NextWrite != s.NextWrite ||
		!bytes.Equal(stored.Header.AppendSlot(nil), s.Header.AppendSlot(nil)) {
		return errLost
	}
	return nil
}

// writeSlot writes h to one slot, durably.
func writeSlot(b Backing, which layout.Slot, h *layout.Header) error {
	if _, err := b.WriteAt(h.AppendSlot(nil), which.Offset(), Volatile); err != nil {
		return fmt.Errorf("write header slot %v: %w", which, err)
	}
	if err := b.Sync(Data); err != nil {
		return fmt.Errorf("sync header slot %v: %w", which, err)
	}
	return nil
}
