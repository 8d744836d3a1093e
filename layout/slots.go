package layout

import (
	"bytes"
	"fmt"
)

// Slot names one of the two header slots.
type Slot uint8

// The two slots.
const (
	SlotA Slot = iota
	SlotB
)

// Offset is where the slot begins in the backing file, in bytes.
func (s Slot) Offset() int64 {
	if s == SlotA {
		return SlotAOffset
	}
	return SlotBOffset
}

// Other is the other slot.
func (s Slot) Other() Slot { return SlotB - s }

// String is "A" or "B".
func (s Slot) String() string {
	if s == SlotA {
		return "A"
	}
	return "B"
}

// Slots is the joint content of the two slots of a file.
type Slots struct {
	Header *Header // of the slot that counts
	Which  Slot
	// NextWrite is the slot to write first in a header update: the ill-formed one, else the older
	// one, else B. NextWrite is never the slot that counts.
	NextWrite Slot
	// Differ reports that the slots hold different bytes: a header update was cut off. Rekey and
	// an open for writing copy the counting slot over the other.
	Differ bool
	// OtherFault is what DecodeSlot finds wrong with the slot that does not count, nil if that slot
	// is the same, or only older.
	OtherFault error
}

// ChooseSlot decides which slot counts (design §3): of the well-formed slots the one with the
// higher generation, A on a tie. The content is judged after the choice; a slot of a newer
// version never makes the other slot count. ErrDamaged means no well-formed slot, slots of
// different files, a generation 0, or a locker that breaks the format.
func ChooseSlot(a, b []byte) (Slots, error) {
	which, err := choose(a, b)
	if err != nil {
		return Slots{}, err
	}
	counting, other := a, b
	if which == SlotB {
		counting, other = b, a
	}
	h, err := decode(counting)
	if err != nil {
		return Slots{}, fmt.Errorf("slot %v: %w", which, err)
	}
	s := Slots{
		Header:    h,
		Which:     which,
		NextWrite: which.Other(), // ill-formed, older, or B on a tie
		Differ:    !bytes.Equal(a, b),
	}
	if s.Differ {
		_, s.OtherFault = DecodeSlot(other)
	}
	return s, nil
}

// choose looks at generations and file ids alone: every version keeps both in place.
func choose(a, b []byte) (Slot, error) {
	errA, errB := illFormed(a), illFormed(b)
	if errA != nil && errB != nil {
		// The errors of the slots are not wrapped: an ill-formed slot is no answer for the file.
		return 0, fmt.Errorf("%w: slot A: %v; slot B: %v", ErrDamaged, errA, errB)
	}
	if errA == nil && generation(a) == 0 {
		return 0, fmt.Errorf("%w: slot A: generation 0", ErrDamaged)
	}
	if errB == nil && generation(b) == 0 {
		return 0, fmt.Errorf("%w: slot B: generation 0", ErrDamaged)
	}
	switch {
	case errB != nil:
		return SlotA, nil
	case errA != nil:
		return SlotB, nil
	case fileID(a) != fileID(b):
		return 0, fmt.Errorf("%w: slots of different files, %v and %v", ErrDamaged, fileID(a), fileID(b))
	case generation(b) > generation(a):
		return SlotB, nil
	default:
		return SlotA, nil
	}
}
