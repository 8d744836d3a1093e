package layout

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// reseal makes a changed slot well-formed again.
func reseal(slot []byte) []byte {
	sum := sha256.Sum256(slot[:4064])
	copy(slot[4064:], sum[:])
	return slot
}

// edited returns the vector slot, changed by edit, with a right SHA-256.
func edited(t testing.TB, edit func(slot []byte)) []byte {
	t.Helper()
	slot := bytes.Clone(loadVectors(t).Slot)
	edit(slot)
	return reseal(slot)
}

// checkError checks that err is want and neither of the other two errors.
func checkError(t *testing.T, err, want error) {
	t.Helper()
	for _, e := range []error{ErrIllFormed, ErrDamaged, ErrUnsupported} {
		if errors.Is(err, e) != (e == want) {
			t.Errorf("error %v: errors.Is(err, %q) = %v", err, e, errors.Is(err, e))
		}
	}
}

func TestDecodeSlotIllFormed(t *testing.T) {
	slot := loadVectors(t).Slot
	for _, n := range []int{0, 1, 8, 4064, 4095} {
		t.Run(fmt.Sprint(n, " bytes"), func(t *testing.T) {
			_, err := DecodeSlot(slot[:n])
			checkError(t, err, ErrIllFormed)
		})
	}
	t.Run("4097 bytes", func(t *testing.T) {
		_, err := DecodeSlot(append(bytes.Clone(slot), 0))
		checkError(t, err, ErrIllFormed)
	})
	t.Run("zeros", func(t *testing.T) {
		_, err := DecodeSlot(make([]byte, SlotSize))
		checkError(t, err, ErrIllFormed)
	})
	t.Run("other magic, right SHA-256", func(t *testing.T) {
		_, err := DecodeSlot(edited(t, func(s []byte) { s[0] = 0x88 }))
		checkError(t, err, ErrIllFormed)
	})
	t.Run("any bit flipped", func(t *testing.T) {
		for i := range SlotSize {
			bad := bytes.Clone(slot)
			bad[i] ^= 1 << (i % 8)
			if _, err := DecodeSlot(bad); !errors.Is(err, ErrIllFormed) {
				t.Fatalf("byte %d: error %v, want ErrIllFormed", i, err)
			}
			if WellFormed(bad) {
				t.Fatalf("byte %d: WellFormed", i)
			}
		}
	})
	if !WellFormed(slot) {
		t.Error("the vector slot is not WellFormed")
	}
}

func TestDecodeSlotRefuses(t *testing.T) {
	const locker0, locker7 = 64, 64 + 7*480
	for _, c := range []struct {
		name string
		edit func(s []byte)
		want error
		says string
	}{
		{"version 0", func(s []byte) { s[8] = 0 }, ErrUnsupported, "version 0"},
		{"version 2", func(s []byte) { s[8] = 2 }, ErrUnsupported, "version 2"},
		{"version 256", func(s []byte) { s[8], s[9] = 0, 1 }, ErrUnsupported, "version 256"},
		{"cipher", func(s []byte) { s[10] = 2 }, ErrUnsupported, "cipher 2"},
		{"flags", func(s []byte) { s[12] = 1 }, ErrUnsupported, "flags 0x1"},
		{"high flag", func(s []byte) { s[15] = 0x80 }, ErrUnsupported, "flags 0x80000000"},
		{"data offset", func(s []byte) { s[42] = 0x20 }, ErrUnsupported, "data offset 2097152"},
		{"reserved 44", func(s []byte) { s[44] = 1 }, ErrUnsupported, "reserved"},
		{"reserved 63", func(s []byte) { s[63] = 1 }, ErrUnsupported, "reserved"},
		{"reserved 3952", func(s []byte) { s[3952] = 1 }, ErrUnsupported, "reserved"},
		{"reserved 3952 with a mark", func(s []byte) { s[3936], s[3952] = 1, 1 }, ErrUnsupported, "reserved"},
		{"reserved 4063", func(s []byte) { s[4063] = 1 }, ErrUnsupported, "reserved"},
		{"generation 0", func(s []byte) { s[16] = 0 }, ErrDamaged, "generation 0"},
		{"empty locker in use", func(s []byte) { s[locker7+479] = 1 }, ErrDamaged, "locker 7"},
		{"first locker emptied", func(s []byte) { s[locker0] = 0 }, ErrDamaged, "locker 0"},
		{"no provider name", func(s []byte) { s[locker0+1] = 0 }, ErrDamaged, "provider name: padding"},
		{"empty provider name", func(s []byte) { s[locker0+1] = 0; clear(s[locker0+112 : locker0+176]) }, ErrDamaged, "provider name: empty"},
		{"provider name short", func(s []byte) { s[locker0+1] = 3 }, ErrDamaged, "provider name: padding"},
		{"provider name with NUL", func(s []byte) { s[locker0+1] = 5 }, ErrDamaged, "provider name: control character"},
		{"provider name too long", func(s []byte) { s[locker0+1] = 65 }, ErrDamaged, "provider name: length 65"},
		{"provider name control", func(s []byte) { s[locker0+112] = '\n' }, ErrDamaged, "provider name: control character"},
		{"provider name not UTF-8", func(s []byte) { s[locker0+112] = 0xff }, ErrDamaged, "provider name: not UTF-8"},
		{"provider name padding", func(s []byte) { s[locker0+175] = 1 }, ErrDamaged, "provider name: padding"},
		{"empty key identifier", func(s []byte) { s[locker0+2] = 0; clear(s[locker0+176 : locker0+432]) }, ErrDamaged, "key identifier: empty"},
		{"key identifier too long", func(s []byte) { s[locker0+2], s[locker0+3] = 1, 1 }, ErrDamaged, "key identifier: length 257"},
		{"key identifier DEL", func(s []byte) { s[locker0+176] = 0x7f }, ErrDamaged, "key identifier: control character"},
		{"key identifier padding", func(s []byte) { s[locker0+431] = 1 }, ErrDamaged, "key identifier: padding"},
		{"end of the locker 432", func(s []byte) { s[locker0+432] = 1 }, ErrDamaged, "after the key identifier"},
		{"end of the locker 479", func(s []byte) { s[locker0+479] = 1 }, ErrDamaged, "after the key identifier"},
		// A slot of a newer version may use values that version 1 calls damage.
		{"version 2 with other lockers", func(s []byte) { s[8] = 2; s[locker0+1] = 65 }, ErrUnsupported, "version 2"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			slot := edited(t, c.edit)
			h, err := DecodeSlot(slot)
			checkError(t, err, c.want)
			if h != nil || err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("DecodeSlot = %v, %v, want an error with %q", h, err, c.says)
			}
			_, err = ChooseSlot(slot, slot)
			checkError(t, err, c.want)
		})
	}
}

func TestGreatestNames(t *testing.T) {
	h := loadVectors(t).header()
	h.Lockers[7] = Locker{Wrap: WrapKMIP, Provider: strings.Repeat("p", 64), KeyID: strings.Repeat("é", 128)}
	got, err := DecodeSlot(h.AppendSlot(nil))
	if err != nil {
		t.Fatal(err)
	}
	checkKMIPLocker(t, &got.Lockers[7], &h.Lockers[7])
}

// TestUnknownWrapIsKept updates a header with a locker of a newer version.
func TestUnknownWrapIsKept(t *testing.T) {
	fill := func(s []byte) {
		l := s[64+480 : 64+2*480]
		for i := range l {
			l[i] = byte(i) | 0x80
		}
		l[0] = 0xfe
	}
	slot := edited(t, fill)
	want := bytes.Clone(slot)
	h, err := DecodeSlot(slot)
	if err != nil {
		t.Fatal(err)
	}
	clear(slot) // the header keeps no reference to slot
	if got := h.AppendSlot(nil); !bytes.Equal(got, want) {
		t.Error("the slot does not encode to the same bytes")
	}
	if l := h.Lockers[1]; l.Wrap != 0xfe || l.Provider != "" || l.KeyID != "" {
		t.Errorf("locker of an unknown wrap: %+v", l)
	}
	updated := *h
	updated.Generation++
	updated.Lockers[0].KeyID = "another"
	got := updated.AppendSlot(nil)
	if !bytes.Equal(got[64+480:64+2*480], want[64+480:64+2*480]) {
		t.Error("an update changed the locker of an unknown wrap")
	}
	if aad := h.WrapAAD(1); len(aad) != 16+40+20+368 || !bytes.Equal(aad[76:], want[64+480+112:64+2*480]) {
		t.Errorf("additional data of the unknown wrap: %x", aad)
	}
}

func TestAppendSlotAppends(t *testing.T) {
	v := loadVectors(t)
	dirty := bytes.Repeat([]byte{0xff}, 3*SlotSize)
	got := v.header().AppendSlot(dirty[:3])
	if want := append([]byte{0xff, 0xff, 0xff}, v.Slot...); !bytes.Equal(got, want) {
		t.Error("AppendSlot took over bytes that lay behind its argument")
	}
	if &got[0] != &dirty[0] {
		t.Error("AppendSlot left capacity unused")
	}
}

func TestEncodeRefuses(t *testing.T) {
	for name, l := range map[string]Locker{
		"no provider":         {Wrap: WrapKMIP, KeyID: "k"},
		"no key identifier":   {Wrap: WrapKMIP, Provider: "p"},
		"long provider":       {Wrap: WrapKMIP, Provider: strings.Repeat("p", 65), KeyID: "k"},
		"long key identifier": {Wrap: WrapKMIP, Provider: "p", KeyID: strings.Repeat("k", 257)},
		"wrap never decoded":  {Wrap: 2},
		"wrap of another":     {Wrap: 2, raw: make([]byte, LockerSize)},
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if s, ok := recover().(string); !ok || !strings.HasPrefix(s, "layout: ") {
					t.Errorf("AppendSlot panicked with %q", s)
				}
			}()
			h := Header{Generation: 1}
			h.Lockers[3] = l
			h.AppendSlot(nil)
		})
	}
}

func TestValidNames(t *testing.T) {
	for _, c := range []struct {
		provider, keyID, says string
	}{
		{"p", "k", ""},
		{strings.Repeat("p", 64), strings.Repeat("k", 256), ""},
		{"Köln", "kéy \"x\"", ""},
		{"", "k", "provider name: empty"},
		{"p", "", "key identifier: empty"},
		{strings.Repeat("p", 65), "k", "provider name: 65 bytes"},
		{"p", strings.Repeat("k", 257), "key identifier: 257 bytes"},
		{"a\xff", "k", "provider name: not UTF-8"},
		{"p", "a\x00", "key identifier: control character U+0000"},
		{"a\u0085", "k", "provider name: control character U+0085"},
		{"p", "\x1b[2J", "key identifier: control character U+001B"},
	} {
		err := ValidNames(c.provider, c.keyID)
		if (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("ValidNames(%q, %q) = %v, want %q", c.provider, c.keyID, err, c.says)
		}
	}
}

// FuzzSlot checks that every slot that decodes encodes to the same bytes, and that ChooseSlot
// reads one slot as it reads the same slot twice. The test makes the SHA-256 of the fuzzer's
// slots right: the fuzzer alone would not find one.
func FuzzSlot(f *testing.F) {
	v := loadVectors(f)
	f.Add([]byte(v.Slot))
	f.Add([]byte(v.TwoLockers.Slot))
	f.Add([]byte(v.Slot[:100]))
	f.Add([]byte(loadMoveVectors(f).MarkedSlot.Slot))
	f.Add(edited(f, func(s []byte) { s[8] = 2 }))
	f.Add(edited(f, func(s []byte) { s[64+480] = 9; s[64+2*480-1] = 1 }))
	f.Fuzz(func(t *testing.T, b []byte) {
		if h, err := DecodeSlot(b); err == nil && !bytes.Equal(h.AppendSlot(nil), b) {
			t.Fatalf("%x decodes to %+v, which encodes otherwise", b, h)
		}
		if len(b) != SlotSize {
			return
		}
		slot := bytes.Clone(b)
		copy(slot, Magic)
		reseal(slot)
		before := bytes.Clone(slot)
		h, err := DecodeSlot(slot)
		if !bytes.Equal(slot, before) {
			t.Fatal("the slot was changed")
		}
		if err != nil {
			if errors.Is(err, ErrDamaged) == errors.Is(err, ErrUnsupported) || errors.Is(err, ErrIllFormed) {
				t.Fatalf("well-formed slot: error %v", err)
			}
			return
		}
		if h.Generation != binary.LittleEndian.Uint64(slot[16:]) {
			t.Fatalf("generation %d", h.Generation)
		}
		if !bytes.Equal(h.AppendSlot(nil), slot) {
			t.Fatalf("%x decodes to %+v, which encodes otherwise", slot, h)
		}
		want := slot[:3904]
		if !AllZero(slot[3936:3952]) {
			want = slices.Concat(want, slot[3936:4064])
		}
		if !bytes.Equal(h.AuthenticatedBytes(), want) {
			t.Fatal("AuthenticatedBytes are not the bytes of the slot around the MAC")
		}
	})
}
