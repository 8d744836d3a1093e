package keys

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"vmcryptfs/layout"
)

func TestNewKEKLength(t *testing.T) {
	for _, n := range []int{0, 1, 15, 16, 24, 31, 33, 64} {
		k, err := NewKEK("corp", "id", make([]byte, n))
		if !errors.Is(err, ErrKeyLength) || errors.Is(err, ErrNoKey) || k != nil {
			t.Errorf("KEK of %d bytes: %v, %v; want ErrKeyLength", n, k, err)
		}
	}
}

func TestWrapFresh(t *testing.T) {
	v := loadVectors(t)
	k := v.kek(t)
	dek, err := NewDEK()
	if err != nil {
		t.Fatal(err)
	}
	defer dek.Wipe()
	h := &layout.Header{Generation: 1, FileID: layout.FileID(v.FileID)}
	seen := map[[12]byte]bool{}
	for i := range layout.MaxLockers {
		if err := k.Wrap(h, i, dek); err != nil {
			t.Fatal(err)
		}
		if seen[h.Lockers[i].Nonce] {
			t.Error("a nonce came twice")
		}
		seen[h.Lockers[i].Nonce] = true
	}
	dek.Seal(h)
	for i := range layout.MaxLockers {
		got, err := k.Unwrap(decode(t, h.AppendSlot(nil)), i)
		if err != nil {
			t.Fatalf("locker %d: %v", i, err)
		}
		if !bytes.Equal(got.Bytes(), dek.Bytes()) {
			t.Errorf("locker %d: another DEK", i)
		}
		got.Wipe()
	}
}

func TestWrapBadNames(t *testing.T) {
	v := loadVectors(t)
	dek := v.dek(t)
	for _, c := range []struct{ provider, id string }{
		{"", "id"}, {"corp", ""}, {"corp", "a\x00b"}, {"corp\n", "id"}, {"corp", "\xff"},
		{strings.Repeat("p", 65), "id"}, {"corp", strings.Repeat("i", 257)},
	} {
		h := &layout.Header{Generation: 1, FileID: layout.FileID(v.FileID)}
		err := newKEK(t, c.provider, c.id, v.KEK).Wrap(h, 0, dek)
		if err == nil {
			t.Errorf("wrapped under KEK %q of provider %q", c.id, c.provider)
		} else if !utf8.ValidString(err.Error()) || strings.ContainsAny(err.Error(), "\n\x00") {
			t.Errorf("error not escaped: %q", err)
		}
		if h.Lockers[0].Wrap != 0 {
			t.Errorf("locker filled for KEK %q of provider %q", c.id, c.provider)
		}
	}
}

// Every byte of a slot is changed, with a right SHA-256: the slot does not decode or does not
// open, with the right error.
func TestUnwrapFlipped(t *testing.T) {
	v := loadVectors(t)
	k := v.kek(t)
	slot := v.TwoLockers.Slot
	for i := range 4064 {
		bad := bytes.Clone(slot)
		bad[i] ^= 0x01
		sum := sha256.Sum256(bad[:4064])
		copy(bad[4064:], sum[:])
		want := flippedWant(i)
		h, err := layout.DecodeSlot(bad)
		if err == nil {
			var dek *DEK
			if dek, err = k.Unwrap(h, 0); err == nil {
				dek.Wipe()
			}
		}
		if !isAnyOf(err, want) {
			t.Errorf("byte %d flipped: %v, want one of %v", i, err, want)
		}
	}
}

// flippedWant returns the errors prescribed by the format for a change of byte i (design §3).
func flippedWant(i int) []error {
	const locker0, locker1 = 64, 64 + layout.LockerSize
	switch {
	case i < 8:
		return []error{layout.ErrIllFormed}
	case i >= 3936 && i < 3952: // the mark
		return []error{ErrTampered}
	case i < 16, i >= 40 && i < 64, i >= 3936: // version, cipher, flags, data offset, reserved
		return []error{layout.ErrUnsupported}
	case i >= locker0+4 && i < locker0+20:
		return []error{ErrWrongKey}
	case i < locker1, i >= locker1 && i < locker1+layout.LockerSize:
		// Names and their lengths may be damage by themselves; a changed wrap is unknown or
		// empty.
		return []error{ErrTampered, layout.ErrDamaged, layout.ErrUnsupported}
	case i < 3904: // empty lockers made non-empty
		return []error{ErrTampered, layout.ErrDamaged}
	default:
		return []error{ErrTampered}
	}
}

func isAnyOf(err error, any []error) bool {
	for _, e := range any {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// Fields covered by GCM and the MAC, one by one: each gives exactly ErrTampered.
func TestUnwrapTamperedFields(t *testing.T) {
	v := loadVectors(t)
	k := v.kek(t)
	for _, c := range []struct {
		name string
		edit func(*layout.Header)
	}{
		{"generation", func(h *layout.Header) { h.Generation++ }},
		{"file id", func(h *layout.Header) { h.FileID[3] ^= 1 }},
		{"provider", func(h *layout.Header) { h.Lockers[0].Provider = "corq" }},
		{"provider's length", func(h *layout.Header) { h.Lockers[0].Provider = "cor" }},
		{"key identifier", func(h *layout.Header) { h.Lockers[0].KeyID = "6f1c-43" }},
		{"nonce", func(h *layout.Header) { h.Lockers[0].Nonce[0] ^= 1 }},
		{"wrapped DEK", func(h *layout.Header) { h.Lockers[0].Wrapped[0] ^= 1 }},
		{"GCM tag", func(h *layout.Header) { h.Lockers[0].Wrapped[79] ^= 1 }},
		{"slot MAC", func(h *layout.Header) { h.MAC[31] ^= 1 }},
		{"other locker dropped", func(h *layout.Header) { h.Lockers[1] = layout.Locker{} }},
		{"locker added", func(h *layout.Header) { h.Lockers[2] = h.Lockers[0] }},
		{"lockers swapped", func(h *layout.Header) { h.Lockers[0], h.Lockers[2] = h.Lockers[1], h.Lockers[0] }},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := decode(t, v.TwoLockers.Slot)
			c.edit(h)
			locker := 0
			if h.Lockers[0].Provider == "escrow" {
				locker = 2
			}
			dek, err := k.Unwrap(h, locker)
			if !errors.Is(err, ErrTampered) || errors.Is(err, ErrNoKey) || dek != nil {
				t.Errorf("error %v, want ErrTampered", err)
			}
		})
	}
}

func TestUnwrapWrongKey(t *testing.T) {
	v := loadVectors(t)
	other := newKEK(t, v.Provider, v.KeyID, v.TwoLockers.Second.KEK)
	_, err := other.Unwrap(decode(t, v.Slot), 0)
	if !errors.Is(err, ErrWrongKey) || errors.Is(err, ErrTampered) {
		t.Errorf("error %v, want ErrWrongKey", err)
	}
	if !strings.Contains(err.Error(), `"6f1c-42"`) || !strings.Contains(err.Error(), "restored empty") {
		t.Errorf("error %q names no key or no cause", err)
	}
}

func TestUnwrapUnknownWrap(t *testing.T) {
	v := loadVectors(t)
	_, err := v.kek(t).Unwrap(decode(t, v.Slot), 5)
	if !errors.Is(err, layout.ErrUnsupported) {
		t.Errorf("empty locker: %v, want ErrUnsupported", err)
	}
}

// A DEK whose halves are equal opens nothing, though the wrap and the MAC are right.
func TestUnwrapEqualHalves(t *testing.T) {
	v := loadVectors(t)
	dek := v.dek(t)
	copy(dek.Bytes()[32:], dek.Bytes()[:32])
	h := &layout.Header{Generation: 1, FileID: layout.FileID(v.FileID)}
	if err := v.kek(t).Wrap(h, 0, dek); err != nil {
		t.Fatal(err)
	}
	dek.Seal(h)
	if _, err := v.kek(t).Unwrap(h, 0); !errors.Is(err, ErrTampered) {
		t.Errorf("error %v, want ErrTampered", err)
	}
}

func TestNewDEKDiffers(t *testing.T) {
	a, err := NewDEK()
	if err != nil {
		t.Fatal(err)
	}
	defer a.Wipe()
	b, err := NewDEK()
	if err != nil {
		t.Fatal(err)
	}
	defer b.Wipe()
	if bytes.Equal(a.Bytes(), b.Bytes()) || allZero(a.Bytes()) {
		t.Error("a DEK is not random")
	}
}

// A wiped key in use would be the key of nothing, which anyone can derive.
func TestUseAfterWipe(t *testing.T) {
	v := loadVectors(t)
	k, dek := v.kek(t), v.dek(t)
	h := decode(t, v.Slot)
	k.Wipe()
	k.Wipe()
	dek.Wipe()
	dek.Wipe()
	for name, use := range map[string]func(){
		"wrap":     func() { k.Wrap(h, 1, v.dek(t)) },
		"unwrap":   func() { k.Unwrap(h, 0) },
		"settings": func() { k.SealSettings(h.FileID, nil) },
		"seal":     func() { dek.Seal(h) },
		"verify":   func() { dek.Verify(h) },
	} {
		func() {
			defer func() {
				if r := recover(); r == nil || !strings.HasPrefix(fmt.Sprint(r), "keys: ") {
					t.Errorf("%s after Wipe: %v", name, r)
				}
			}()
			use()
		}()
	}
}

// Every format verb prints a key's name and no material.
func TestKeysDoNotPrint(t *testing.T) {
	v := loadVectors(t)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x"} {
		for _, key := range []any{v.kek(t), v.dek(t)} {
			out := fmt.Sprintf(verb, key)
			for _, material := range [][]byte{v.KEK, v.DEK} {
				if strings.Contains(out, fmt.Sprintf("%x", material[:8])) || strings.Contains(out, string(material[:8])) ||
					strings.Contains(out, fmt.Sprint(material[:8])[1:15]) {
					t.Errorf("%s of %T shows key material: %s", verb, key, out)
				}
			}
		}
	}
}

func TestVerifySettings(t *testing.T) {
	v := loadVectors(t)
	k, other := v.kek(t), v.second(t)
	otherID := newKEK(t, v.Provider, "before", v.TwoLockers.Second.KEK)
	otherProvider := newKEK(t, "before", v.KeyID, v.TwoLockers.Second.KEK)
	parse := func(text []byte) *layout.Sealed {
		s, err := layout.ParseSettings(text)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	body := []byte(v.Settings.Text)
	id := parse([]byte(v.Settings.Sealed)).Settings.ID
	mac, otherMAC := k.SealSettings(id, body), other.SealSettings(id, body)
	var noise [32]byte
	rand.Read(noise[:])
	for _, c := range []struct {
		name string
		kek  *KEK
		text []byte
		ok   bool
	}{
		{"current", k, layout.AppendSeal(body, mac, nil), true},
		{"current, with previous", k, layout.AppendSeal(body, mac, &otherMAC), true},
		{"current wrong, previous by it right", k, layout.AppendSeal(body, noise, &mac), false},
		{"previous", other, layout.AppendSeal(body, mac, &otherMAC), true},
		{"previous of the same provider", otherID, layout.AppendSeal(body, mac, &otherMAC), true},
		{"previous of the same identifier", otherProvider, layout.AppendSeal(body, mac, &otherMAC), true},
		{"previous without current", other, layout.AppendSeal(body, noise, &otherMAC), true},
		{"previous missing", other, layout.AppendSeal(body, otherMAC, nil), false},
		{"previous wrong", other, layout.AppendSeal(body, mac, &noise), false},
		{"re-sealed by another key", k, layout.AppendSeal(body, otherMAC, nil), false},
		{"body changed", k, layout.AppendSeal(bytes.Replace(body, []byte("serial = 1"), []byte("serial = 2"), 1), mac, nil), false},
		{"id changed", k, layout.AppendSeal(bytes.Replace(body, []byte("00112233"), []byte("00112234"), 1), mac, nil), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := c.kek.VerifySettings(parse(c.text))
			if (err == nil) != c.ok || err != nil && (!errors.Is(err, ErrSeal) || errors.Is(err, ErrNoKey)) {
				t.Errorf("error %v, want ok %v or ErrSeal", err, c.ok)
			}
		})
	}
}
