package keys

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"testing"

	"vmcryptfs/layout"
)

// moveVectors are layout/testdata/moves-vectors.json, as far as keys go.
type moveVectors struct {
	MarkedSlot struct {
		MAC  hexBytes `json:"mac"`
		Slot hexBytes `json:"slot"`
	} `json:"marked_slot"`
	Records []struct {
		Sequence uint64   `json:"sequence"`
		Record   hexBytes `json:"record"`
	} `json:"records"`
	Settings sealedExample `json:"settings"`
}

func loadMoveVectors(t *testing.T) *moveVectors {
	t.Helper()
	b, err := os.ReadFile("../layout/testdata/moves-vectors.json")
	if err != nil {
		t.Fatal(err)
	}
	v := new(moveVectors)
	if err := json.Unmarshal(b, v); err != nil {
		t.Fatal(err)
	}
	if len(v.MarkedSlot.Slot) != layout.SlotSize || len(v.Records) < 5 {
		t.Fatal("vectors are missing")
	}
	return v
}

func TestVectorMarkedSlot(t *testing.T) {
	v, dek := loadMoveVectors(t), loadVectors(t).dek(t)
	h := decode(t, v.MarkedSlot.Slot)
	if err := dek.Verify(h); err != nil {
		t.Error(err)
	}
	dek.Seal(h)
	if !bytes.Equal(h.MAC[:], v.MarkedSlot.MAC) {
		t.Errorf("slot MAC %x, want %x", h.MAC, []byte(v.MarkedSlot.MAC))
	}
	if _, err := loadVectors(t).kek(t).Unwrap(h, 0); err != nil {
		t.Errorf("a marked file's wrap: %v", err)
	}
	h.Mark[15]++
	if err := dek.Verify(h); !errors.Is(err, ErrTampered) {
		t.Errorf("another mark: %v", err)
	}
	h.Mark = layout.FileID{}
	if err := dek.Verify(h); !errors.Is(err, ErrTampered) {
		t.Errorf("the mark taken away: %v", err)
	}
}

func TestVectorRecords(t *testing.T) {
	dek := loadVectors(t).dek(t)
	other, err := NewDEK()
	if err != nil {
		t.Fatal(err)
	}
	defer other.Wipe()
	for _, v := range loadMoveVectors(t).Records {
		r, err := layout.DecodeRecord(v.Record)
		if err != nil {
			t.Fatal(err)
		}
		if err := dek.VerifyRecord(r); err != nil {
			t.Errorf("sequence %d: %v", v.Sequence, err)
		}
		if err := other.VerifyRecord(r); !errors.Is(err, ErrTampered) {
			t.Errorf("sequence %d under another DEK: %v", v.Sequence, err)
		}
		r.MAC = [32]byte{}
		dek.SealRecord(r)
		if !bytes.Equal(r.AppendRecord(nil), v.Record) {
			t.Errorf("sequence %d: another record than the vector's", v.Sequence)
		}
		r.Watermark = layout.AllInSource - 1 ^ r.Watermark
		if err := dek.VerifyRecord(r); !errors.Is(err, ErrTampered) {
			t.Errorf("sequence %d with another watermark: %v", v.Sequence, err)
		}
	}
}

func TestVectorPolicies(t *testing.T) {
	v, k := loadMoveVectors(t), loadVectors(t).kek(t)
	sealed, err := layout.ParseSettings([]byte(v.Settings.Sealed))
	if err != nil {
		t.Fatal(err)
	}
	if err := k.VerifySettings(sealed); err != nil {
		t.Errorf("seal of the vector: %v", err)
	}
}
