package keys

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"testing"

	"vmcryptfs/layout"
)

// vectors are the numbers of an independent program for design §3 and §5
// (layout/testdata/format-vectors.json), as far as keys go.
type vectors struct {
	KEK        hexBytes      `json:"kek"`
	DEK        hexBytes      `json:"dek"`
	FileID     hexBytes      `json:"file_id"`
	Provider   string        `json:"provider"`
	KeyID      string        `json:"key_id"`
	Nonce      hexBytes      `json:"nonce"`
	KCV        hexBytes      `json:"kcv"`
	SlotMAC    hexBytes      `json:"slot_mac"`
	AAD        hexBytes      `json:"aad"`
	Wrapped    hexBytes      `json:"wrapped"`
	Slot       hexBytes      `json:"slot"`
	TwoLockers twoLockers    `json:"two_lockers"`
	Settings   sealedExample `json:"settings"`
}

type twoLockers struct {
	Generation uint64 `json:"generation"`
	Second     struct {
		KEK      hexBytes `json:"kek"`
		Provider string   `json:"provider"`
		KeyID    string   `json:"key_id"`
		Nonce    hexBytes `json:"nonce"`
	} `json:"second"`
	Slot hexBytes `json:"slot"`
}

type sealedExample struct {
	Text   string `json:"text"`
	Sealed string `json:"sealed"`
}

type hexBytes []byte

func (h *hexBytes) UnmarshalText(b []byte) (err error) {
	*h, err = hex.DecodeString(string(b))
	return err
}

func loadVectors(t testing.TB) *vectors {
	t.Helper()
	b, err := os.ReadFile("../layout/testdata/format-vectors.json")
	if err != nil {
		t.Fatal(err)
	}
	v := new(vectors)
	if err := json.Unmarshal(b, v); err != nil {
		t.Fatal(err)
	}
	if len(v.KEK) != 32 || len(v.DEK) != 64 || len(v.Slot) != layout.SlotSize || len(v.TwoLockers.Slot) != layout.SlotSize {
		t.Fatal("vectors are missing")
	}
	return v
}

func (v *vectors) kek(t testing.TB) *KEK { return newKEK(t, v.Provider, v.KeyID, v.KEK) }

func (v *vectors) second(t testing.TB) *KEK {
	s := v.TwoLockers.Second
	return newKEK(t, s.Provider, s.KeyID, s.KEK)
}

func (v *vectors) dek(t testing.TB) *DEK {
	t.Helper()
	d, err := NewDEK()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Wipe)
	copy(d.Bytes(), v.DEK)
	return d
}

func newKEK(t testing.TB, provider, id string, material []byte) *KEK {
	t.Helper()
	k, err := NewKEK(provider, id, material)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Wipe)
	return k
}

func decode(t testing.TB, slot []byte) *layout.Header {
	t.Helper()
	h, err := layout.DecodeSlot(slot)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func TestVectorKCV(t *testing.T) {
	v := loadVectors(t)
	if got := v.kek(t).CheckValue(); !bytes.Equal(got[:], v.KCV) {
		t.Errorf("check value %x, want %x", got, v.KCV)
	}
}

func TestVectorSlot(t *testing.T) {
	v := loadVectors(t)
	h := &layout.Header{Generation: 1, FileID: layout.FileID(v.FileID)}
	dek := v.dek(t)
	if err := v.kek(t).wrap(h, 0, dek, [12]byte(v.Nonce)); err != nil {
		t.Fatal(err)
	}
	if got := h.WrapAAD(0); !bytes.Equal(got, v.AAD) {
		t.Errorf("additional data\n got %x\nwant %x", got, []byte(v.AAD))
	}
	if got := h.Lockers[0].Wrapped[:]; !bytes.Equal(got, v.Wrapped) {
		t.Errorf("wrapped\n got %x\nwant %x", got, []byte(v.Wrapped))
	}
	dek.Seal(h)
	if !bytes.Equal(h.MAC[:], v.SlotMAC) {
		t.Errorf("slot MAC %x, want %x", h.MAC, []byte(v.SlotMAC))
	}
	if !bytes.Equal(h.AppendSlot(nil), v.Slot) {
		t.Error("another slot than the vector's")
	}
}

func TestVectorTwoLockers(t *testing.T) {
	v := loadVectors(t)
	h := &layout.Header{Generation: v.TwoLockers.Generation, FileID: layout.FileID(v.FileID)}
	dek := v.dek(t)
	if err := v.kek(t).wrap(h, 0, dek, [12]byte(v.Nonce)); err != nil {
		t.Fatal(err)
	}
	if err := v.second(t).wrap(h, 1, dek, [12]byte(v.TwoLockers.Second.Nonce)); err != nil {
		t.Fatal(err)
	}
	dek.Seal(h)
	if !bytes.Equal(h.AppendSlot(nil), v.TwoLockers.Slot) {
		t.Error("another slot than the vector's")
	}
}

func TestVectorUnwrap(t *testing.T) {
	v := loadVectors(t)
	one, two := decode(t, v.Slot), decode(t, v.TwoLockers.Slot)
	for _, c := range []struct {
		name   string
		kek    *KEK
		h      *layout.Header
		locker int
	}{
		{"one locker", v.kek(t), one, 0},
		{"first of two", v.kek(t), two, 0},
		{"second of two", v.second(t), two, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			dek, err := c.kek.Unwrap(c.h, c.locker)
			if err != nil {
				t.Fatal(err)
			}
			defer dek.Wipe()
			if !bytes.Equal(dek.Bytes(), v.DEK) {
				t.Error("another DEK than the vector's")
			}
		})
	}
}

func TestVectorSettings(t *testing.T) {
	v := loadVectors(t)
	sealed, err := layout.ParseSettings([]byte(v.Settings.Sealed))
	if err != nil {
		t.Fatal(err)
	}
	k := v.kek(t)
	if err := k.VerifySettings(sealed); err != nil {
		t.Errorf("seal of the vector: %v", err)
	}
	body := []byte(v.Settings.Text)
	mac := k.SealSettings(sealed.Settings.ID, body)
	if got := layout.AppendSeal(body, mac, nil); string(got) != v.Settings.Sealed {
		t.Errorf("sealed\n got %q\nwant %q", got, v.Settings.Sealed)
	}
}

// The vectors are right by themselves: a loader without vectors would let all tests pass.
func TestVectorSlotSum(t *testing.T) {
	v := loadVectors(t)
	sum := sha256.Sum256(v.Slot[:4064])
	if !bytes.Equal(sum[:], v.Slot[4064:]) {
		t.Error("SHA-256 of the slot is wrong")
	}
}
