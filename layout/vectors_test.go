package layout

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"testing"
)

type hexBytes []byte

func (h *hexBytes) UnmarshalText(text []byte) (err error) {
	*h, err = hex.DecodeString(string(text))
	return err
}

// vectors are testdata/format-vectors.json, as far as layout goes.
type vectors struct {
	KEK        hexBytes `json:"kek"`
	DEK        hexBytes `json:"dek"`
	FileID     hexBytes `json:"file_id"`
	Provider   string   `json:"provider"`
	KeyID      string   `json:"key_id"`
	Nonce      hexBytes `json:"nonce"`
	KCV        hexBytes `json:"kcv"`
	SlotMAC    hexBytes `json:"slot_mac"`
	AAD        hexBytes `json:"aad"`
	Wrapped    hexBytes `json:"wrapped"`
	Slot       hexBytes `json:"slot"`
	SlotSHA256 hexBytes `json:"slot_sha256"`
	Files      []struct {
		Length      int64 `json:"length"`
		BackingSize int64 `json:"backing_size"`
	} `json:"files"`
	TwoLockers struct {
		Generation uint64 `json:"generation"`
		Second     struct {
			KEK      hexBytes `json:"kek"`
			Provider string   `json:"provider"`
			KeyID    string   `json:"key_id"`
			Nonce    hexBytes `json:"nonce"`
		} `json:"second"`
		Slot hexBytes `json:"slot"`
	} `json:"two_lockers"`
	Settings struct {
		Text   string `json:"text"`
		Sealed string `json:"sealed"`
	} `json:"settings"`
}

// loadVectors fails where a vector is missing: a test over nothing proves nothing.
func loadVectors(t testing.TB) *vectors {
	t.Helper()
	b, err := os.ReadFile("testdata/format-vectors.json")
	if err != nil {
		t.Fatal(err)
	}
	v := new(vectors)
	if err := json.Unmarshal(b, v); err != nil {
		t.Fatal(err)
	}
	if len(v.Slot) != SlotSize || len(v.TwoLockers.Slot) != SlotSize || len(v.Files) < 10 ||
		len(v.AAD) == 0 || v.Settings.Text == "" || v.Settings.Sealed == "" {
		t.Fatal("vectors are missing")
	}
	return v
}

// header builds the header of the vector slot from the slot's parts.
func (v *vectors) header() *Header {
	h := &Header{Generation: 1, FileID: FileID(v.FileID), MAC: [32]byte(v.SlotMAC)}
	h.Lockers[0] = Locker{
		Wrap:     WrapKMIP,
		Provider: v.Provider,
		KeyID:    v.KeyID,
		KCV:      [16]byte(v.KCV),
		Nonce:    [12]byte(v.Nonce),
		Wrapped:  [80]byte(v.Wrapped),
	}
	return h
}

func TestVectorLengths(t *testing.T) {
	for _, f := range loadVectors(t).Files {
		if got := DataOffset + StoredLen(f.Length); got != f.BackingSize {
			t.Errorf("length %d: backing size %d, want %d", f.Length, got, f.BackingSize)
		}
		if got, ok := LogicalLen(f.BackingSize - DataOffset); got != f.Length || !ok {
			t.Errorf("backing size %d: length %d, %v, want %d", f.BackingSize, got, ok, f.Length)
		}
	}
}

func TestVectorSlotEncodes(t *testing.T) {
	v := loadVectors(t)
	slot := v.header().AppendSlot(nil)
	if !bytes.Equal(slot, v.Slot) {
		t.Errorf("slot differs from the vector:\n got %x\nwant %x", slot, v.Slot)
	}
	if sum := slot[4064:]; !bytes.Equal(sum, v.SlotSHA256) {
		t.Errorf("SHA-256 in the slot is %x, want %x", sum, v.SlotSHA256)
	}
}

func TestVectorSlotDecodes(t *testing.T) {
	v := loadVectors(t)
	h, err := DecodeSlot(v.Slot)
	if err != nil {
		t.Fatal(err)
	}
	want := v.header()
	if h.Generation != want.Generation || h.FileID != want.FileID || h.MAC != want.MAC {
		t.Errorf("got %+v, want %+v", h, want)
	}
	checkKMIPLocker(t, &h.Lockers[0], &want.Lockers[0])
	for i := range h.Lockers[1:] {
		if got := h.Lockers[1+i].Wrap; got != 0 {
			t.Errorf("locker %d has wrap %d, want 0", 1+i, got)
		}
	}
}

func checkKMIPLocker(t *testing.T, got, want *Locker) {
	t.Helper()
	if got.Wrap != want.Wrap || got.Provider != want.Provider || got.KeyID != want.KeyID ||
		got.KCV != want.KCV || got.Nonce != want.Nonce || got.Wrapped != want.Wrapped {
		t.Errorf("locker is %+v, want %+v", got, want)
	}
}

func TestVectorAAD(t *testing.T) {
	v := loadVectors(t)
	if got := v.header().WrapAAD(0); !bytes.Equal(got, v.AAD) {
		t.Errorf("additional data:\n got %x\nwant %x", got, v.AAD)
	}
}

// TestVectorTwoLockers opens both lockers and checks the MAC by the words of the design: WrapAAD
// and AuthenticatedBytes are right beyond the first locker.
func TestVectorTwoLockers(t *testing.T) {
	v := loadVectors(t)
	h, err := DecodeSlot(v.TwoLockers.Slot)
	if err != nil {
		t.Fatal(err)
	}
	second := v.TwoLockers.Second
	if h.Generation != v.TwoLockers.Generation {
		t.Errorf("generation %d, want %d", h.Generation, v.TwoLockers.Generation)
	}
	l := h.Lockers[1]
	if l.Provider != second.Provider || l.KeyID != second.KeyID || !bytes.Equal(l.Nonce[:], second.Nonce) {
		t.Errorf("second locker is %q, %q, %x", l.Provider, l.KeyID, l.Nonce)
	}
	for i, kek := range [][]byte{v.KEK, second.KEK} {
		if dek := unwrap(t, h, i, kek); !bytes.Equal(dek, v.DEK) {
			t.Errorf("locker %d holds %x, want %x", i, dek, v.DEK)
		}
	}
	key, err := hkdf.Key(sha256.New, v.DEK, nil, "vmcryptfs slot v1", 32)
	if err != nil {
		t.Fatal(err)
	}
	mac := hmac.New(sha256.New, key)
	mac.Write(h.AuthenticatedBytes())
	if got := mac.Sum(nil); !bytes.Equal(got, h.MAC[:]) {
		t.Errorf("MAC %x, want %x", got, h.MAC)
	}
	if got := h.AppendSlot(nil); !bytes.Equal(got, v.TwoLockers.Slot) {
		t.Error("the slot does not encode to the same bytes")
	}
}

func unwrap(t *testing.T, h *Header, i int, kek []byte) []byte {
	t.Helper()
	l := &h.Lockers[i]
	salt := string(h.FileID[:]) + string(l.Nonce[:])
	key, err := hkdf.Key(sha256.New, kek, []byte(salt), "vmcryptfs wrap v1", 32)
	if err != nil {
		t.Fatal(err)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	dek, err := gcm.Open(nil, l.Nonce[:], l.Wrapped[:], h.WrapAAD(i))
	if err != nil {
		t.Fatalf("locker %d: %v", i, err)
	}
	return dek
}

// datastoreID is the id in the vectors' settings, unlike the file id no UUID v4.
var datastoreID = FileID{0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff}

func TestVectorSettings(t *testing.T) {
	v := loadVectors(t)
	s := Settings{Format: 1, ID: datastoreID, Provider: v.Provider, KEK: v.KeyID, Serial: 1}
	if got := string(s.Encode()); got != v.Settings.Text {
		t.Errorf("text:\n got %q\nwant %q", got, v.Settings.Text)
	}
	sealed, err := ParseSettings([]byte(v.Settings.Sealed))
	if err != nil {
		t.Fatal(err)
	}
	if got := string(sealed.Body); got != v.Settings.Text {
		t.Errorf("body:\n got %q\nwant %q", got, v.Settings.Text)
	}
	key, err := hkdf.Key(sha256.New, v.KEK, datastoreID[:], "vmcryptfs settings v1", 32)
	if err != nil {
		t.Fatal(err)
	}
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(v.Settings.Text))
	want := [32]byte(mac.Sum(nil))
	if sealed.MAC != want || sealed.Previous != nil {
		t.Errorf("mac %x, mac_previous %v, want %x and none", sealed.MAC, sealed.Previous, want)
	}
	if got := string(AppendSeal(s.Encode(), want, nil)); got != v.Settings.Sealed {
		t.Errorf("sealed:\n got %q\nwant %q", got, v.Settings.Sealed)
	}
}
