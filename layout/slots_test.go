package layout

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"
)

func TestSlot(t *testing.T) {
	if SlotA.Offset() != 0 || SlotB.Offset() != 524288 {
		t.Errorf("offsets %d and %d", SlotA.Offset(), SlotB.Offset())
	}
	if SlotA.Other() != SlotB || SlotB.Other() != SlotA {
		t.Error("Other is not the other")
	}
	if SlotA.String() != "A" || SlotB.String() != "B" {
		t.Errorf("names %v and %v", SlotA, SlotB)
	}
}

// slotOf is the vector slot with another generation.
func slotOf(t testing.TB, generation uint64, edits ...func([]byte)) []byte {
	return edited(t, func(s []byte) {
		binary.LittleEndian.PutUint64(s[16:], generation)
		for _, edit := range edits {
			edit(s)
		}
	})
}

func TestChooseSlot(t *testing.T) {
	torn := func(s []byte) []byte {
		copy(s[2048:], make([]byte, 2048)) // the SHA-256 is gone
		return s
	}
	newer := func(s []byte) { s[8] = 2 }
	broken := func(s []byte) { s[64+1] = 65 }
	otherMAC := func(s []byte) { s[3904] ^= 1 }
	for _, c := range []struct {
		name   string
		a, b   []byte
		which  Slot
		differ bool
	}{
		{"same", slotOf(t, 5), slotOf(t, 5), SlotA, false},
		{"A newer", slotOf(t, 6), slotOf(t, 5), SlotA, true},
		{"B newer", slotOf(t, 5), slotOf(t, 6), SlotB, true},
		{"tie, other bytes", slotOf(t, 5), slotOf(t, 5, otherMAC), SlotA, true},
		{"A torn", torn(slotOf(t, 6)), slotOf(t, 5), SlotB, true},
		{"B torn", slotOf(t, 5), torn(slotOf(t, 6)), SlotA, true},
		{"A short", nil, slotOf(t, 5), SlotB, true},
		{"B a hole", slotOf(t, 5), make([]byte, SlotSize), SlotA, true},
		{"greatest generation", slotOf(t, 1<<64-2), slotOf(t, 1<<64-1), SlotB, true},
		{"first generation", slotOf(t, 1), slotOf(t, 1), SlotA, false},
		{"older one of a newer version", slotOf(t, 6), slotOf(t, 5, newer), SlotA, true},
		{"older one with a broken locker", slotOf(t, 5, broken), slotOf(t, 6), SlotB, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			got, err := ChooseSlot(c.a, c.b)
			if err != nil {
				t.Fatal(err)
			}
			counting := [][]byte{c.a, c.b}[c.which]
			if got.Which != c.which || !bytes.Equal(got.Header.AppendSlot(nil), counting) {
				t.Errorf("slot %v of generation %d counts, want %v", got.Which, got.Header.Generation, c.which)
			}
			if got.NextWrite != c.which.Other() {
				t.Errorf("next write goes to %v, want %v", got.NextWrite, c.which.Other())
			}
			if got.Differ != c.differ {
				t.Errorf("Differ = %v, want %v", got.Differ, c.differ)
			}
		})
	}
}

func TestChooseSlotRefuses(t *testing.T) {
	torn := func(s []byte) []byte { s[4095] ^= 1; return s }
	version := func(s []byte) { s[8] = 2 }
	broken := func(s []byte) { s[64+1] = 65 }
	other := func(s []byte) { s[24] ^= 1 }
	for _, c := range []struct {
		name string
		a, b []byte
		want error
	}{
		{"both torn", torn(slotOf(t, 5)), torn(slotOf(t, 6)), ErrDamaged},
		{"none", nil, nil, ErrDamaged},
		{"cleartext", bytes.Repeat([]byte("log\n"), 1024), make([]byte, SlotSize), ErrDamaged},
		{"different files", slotOf(t, 5), slotOf(t, 5, other), ErrDamaged},
		{"different files, other generations", slotOf(t, 5), slotOf(t, 6, other), ErrDamaged},
		{"generation 0 twice", slotOf(t, 0), slotOf(t, 0), ErrDamaged},
		{"generation 0 in A", slotOf(t, 0), slotOf(t, 5), ErrDamaged},
		{"generation 0 in B", slotOf(t, 5), slotOf(t, 0), ErrDamaged},
		{"generation 0 alone", slotOf(t, 0), nil, ErrDamaged},
		// The choice comes before the judgement: the other slot is no way around.
		{"A newer and of a newer version", slotOf(t, 6, version), slotOf(t, 5), ErrUnsupported},
		{"B newer and of a newer version", slotOf(t, 5), slotOf(t, 6, version), ErrUnsupported},
		{"tie, A of a newer version", slotOf(t, 5, version), slotOf(t, 5), ErrUnsupported},
		{"only a slot of a newer version", torn(slotOf(t, 6)), slotOf(t, 5, version), ErrUnsupported},
		{"A newer and broken", slotOf(t, 6, broken), slotOf(t, 5), ErrDamaged},
		{"B newer and broken", slotOf(t, 5), slotOf(t, 6, broken), ErrDamaged},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			got, err := ChooseSlot(c.a, c.b)
			checkError(t, err, c.want)
			if got.Header != nil {
				t.Errorf("a header came with error %v", err)
			}
		})
	}
}

// FuzzChooseSlot changes one byte in each of two slots, with or without the SHA-256
// made right, and holds ChooseSlot against the design's words.
func FuzzChooseSlot(f *testing.F) {
	f.Add(uint64(1), uint64(1), uint16(0), byte(0), uint16(0), byte(0), true, true)
	f.Add(uint64(1), uint64(2), uint16(8), byte(3), uint16(3000), byte(1), true, false)
	f.Add(uint64(2), uint64(1), uint16(24), byte(1), uint16(24), byte(2), true, true)
	f.Add(uint64(0), uint64(1<<64-1), uint16(4090), byte(1), uint16(64), byte(7), false, true)
	vector := loadVectors(f).Slot
	make1 := func(generation uint64, at uint16, flip byte, right bool) []byte {
		s := bytes.Clone(vector)
		binary.LittleEndian.PutUint64(s[16:], generation)
		reseal(s)
		s[at%SlotSize] ^= flip
		if right {
			reseal(s)
		}
		return s
	}
	f.Fuzz(func(t *testing.T, genA, genB uint64, atA uint16, flipA byte, atB uint16, flipB byte, rightA, rightB bool) {
		a, b := make1(genA, atA, flipA, rightA), make1(genB, atB, flipB, rightB)
		got, err := ChooseSlot(a, b)
		if err != nil {
			if errors.Is(err, ErrDamaged) == errors.Is(err, ErrUnsupported) {
				t.Fatalf("error %v is not one of damage and newer version", err)
			}
			return
		}
		slots := [][]byte{a, b}
		counting, other := slots[got.Which], slots[got.Which.Other()]
		if !bytes.Equal(got.Header.AppendSlot(nil), counting) {
			t.Fatal("the header is not that of the slot that counts")
		}
		if _, fault := DecodeSlot(other); (fault == nil) != (got.OtherFault == nil) {
			t.Fatalf("OtherFault = %v, want %v", got.OtherFault, fault)
		}
		if got.Differ == bytes.Equal(a, b) {
			t.Fatalf("Differ = %v", got.Differ)
		}
		if !WellFormed(other) {
			return
		}
		generation := binary.LittleEndian.Uint64
		if generation(other[16:]) > got.Header.Generation || generation(other[16:]) == 0 ||
			!bytes.Equal(other[24:40], counting[24:40]) ||
			got.Which == SlotB && generation(other[16:]) == got.Header.Generation {
			t.Fatalf("slot %v of generation %d counts", got.Which, got.Header.Generation)
		}
	})
}
