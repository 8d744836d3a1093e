package integration

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"os"
	"testing"
)

// vectors are the numbers of design §3, made by a program independent of the product and of this
// test.
type vectors struct {
	KEK        hexBytes `json:"kek"`
	DEK        hexBytes `json:"dek"`
	KeyID      string   `json:"key_id"`
	Slot       hexBytes `json:"slot"`
	TwoLockers struct {
		Slot   hexBytes `json:"slot"`
		Second struct {
			KEK   hexBytes `json:"kek"`
			KeyID string   `json:"key_id"`
		} `json:"second"`
	} `json:"two_lockers"`
	Units []struct {
		Unit   uint64   `json:"unit"`
		Cipher hexBytes `json:"cipher"`
	} `json:"units"`
	Files []struct {
		Length      int64  `json:"length"`
		BackingSize int64  `json:"backing_size"`
		SHA256      string `json:"backing_sha256"`
	} `json:"files"`
}

type hexBytes []byte

func (h *hexBytes) UnmarshalText(text []byte) (err error) {
	*h, err = hex.DecodeString(string(text))
	return err
}

func readVectors(t *testing.T) vectors {
	t.Helper()
	b, err := os.ReadFile("../layout/testdata/format-vectors.json")
	if err != nil {
		t.Fatal(err)
	}
	var v vectors
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatal(err)
	}
	if len(v.Slot) != slotSize || len(v.Units) == 0 || len(v.Files) == 0 {
		t.Fatalf("format-vectors.json: slot of %d bytes, %d units, %d files", len(v.Slot), len(v.Units), len(v.Files))
	}
	return v
}

// image is a backing file in memory: a header in both slots, then stored data.
func image(slot, data []byte) []byte {
	b := make([]byte, dataStart, dataStart+len(data))
	copy(b, slot)
	copy(b[slotB:], slot)
	return append(b, data...)
}

// The decryptor must agree with the published numbers to be worth anything.
func TestDecryptorAgreesWithVectors(t *testing.T) {
	t.Parallel()
	v := readVectors(t)
	for name, tc := range map[string]struct {
		slot []byte
		keks map[string][]byte
	}{
		"one locker":       {v.Slot, map[string][]byte{v.KeyID: v.KEK}},
		"first of two":     {v.TwoLockers.Slot, map[string][]byte{v.KeyID: v.KEK}},
		"second of two":    {v.TwoLockers.Slot, map[string][]byte{v.TwoLockers.Second.KeyID: v.TwoLockers.Second.KEK}},
		"one of them away": {v.TwoLockers.Slot, map[string][]byte{"another": v.KEK, v.KeyID: v.KEK}},
	} {
		t.Run(name, func(t *testing.T) {
			for _, u := range v.Units {
				if u.Unit >= 1<<16 {
					continue // such offsets make a file too large for memory; sealUnit covers these offsets
				}
				data := make([]byte, (u.Unit+1)*unitSize)
				copy(data[u.Unit*unitSize:], u.Cipher)
				b := image(tc.slot, data)
				p, err := openPlain(bytes.NewReader(b), int64(len(b)), tc.keks)
				if err != nil {
					t.Fatal(err)
				}
				if p.dek != string(v.DEK) {
					t.Errorf("DEK %x, want %x", p.dek, v.DEK)
				}
				got := make([]byte, unitSize)
				if _, err := p.ReadAt(got, int64(u.Unit)*unitSize); err != nil {
					t.Fatal(err)
				}
				if want := unitPattern(u.Unit); !bytes.Equal(got, want) {
					t.Errorf("unit %d: %x…, want %x…", u.Unit, got[:16], want[:16])
				}
			}
		})
	}
}

// unitPattern is the vectors' plaintext of a unit: byte j = (7j + unit) mod 256.
func unitPattern(unit uint64) []byte {
	b := make([]byte, unitSize)
	for j := range b {
		b[j] = byte(7*uint64(j) + unit)
	}
	return b
}

// Stored and logical lengths, and files made by the forger of forge_test.go, against the
// whole files of the vectors.
func TestForgerAgreesWithVectors(t *testing.T) {
	t.Parallel()
	v := readVectors(t)
	for _, f := range v.Files {
		plain := make([]byte, f.Length)
		for j := range plain {
			plain[j] = byte(13*j + 5)
		}
		b := image(v.Slot, sealData(v.DEK, plain))
		if int64(len(b)) != f.BackingSize {
			t.Errorf("length %d: %d bytes stored, want %d", f.Length, len(b), f.BackingSize)
		}
		if got := sha256Hex(b); got != f.SHA256 {
			t.Errorf("length %d: SHA-256 %s, want %s", f.Length, got, f.SHA256)
		}
		p, err := openPlain(bytes.NewReader(b), int64(len(b)), map[string][]byte{v.KeyID: v.KEK})
		if err != nil {
			t.Fatal(err)
		}
		got, err := p.all()
		if err != nil || !bytes.Equal(got, plain) {
			t.Errorf("length %d: decrypts to %d bytes, equal %v, error %v", f.Length, len(got), bytes.Equal(got, plain), err)
		}
	}
	for _, u := range v.Units {
		if got := sealUnit(v.DEK, unitPattern(u.Unit), u.Unit); !bytes.Equal(got, u.Cipher) {
			t.Errorf("unit %d: %x…, want %x…", u.Unit, got[:16], u.Cipher[:16])
		}
	}
}
