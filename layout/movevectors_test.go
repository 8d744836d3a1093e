package layout

import (
	"bytes"
	"encoding/json"
	"os"
	"testing"
)

// moveVectors are testdata/moves-vectors.json, as far as layout goes.
type moveVectors struct {
	DEK         hexBytes `json:"dek"`
	FileID      hexBytes `json:"file_id"`
	CompanionID hexBytes `json:"companion_id"`
	MoveID      hexBytes `json:"move_id"`
	AllInSource uint64   `json:"all_in_source"`
	MarkedSlot  struct {
		Generation uint64   `json:"generation"`
		MAC        hexBytes `json:"mac"`
		Slot       hexBytes `json:"slot"`
	} `json:"marked_slot"`
	Records []struct {
		Kind      MoveKind `json:"kind"`
		Goal      int      `json:"goal"`
		Sequence  uint64   `json:"sequence"`
		Companion hexBytes `json:"companion"`
		Watermark uint64   `json:"watermark"`
		MAC       hexBytes `json:"mac"`
		Record    hexBytes `json:"record"`
	} `json:"records"`
	Settings struct {
		Text   string `json:"text"`
		Sealed string `json:"sealed"`
	} `json:"settings"`
}

func loadMoveVectors(t testing.TB) *moveVectors {
	t.Helper()
	b, err := os.ReadFile("testdata/moves-vectors.json")
	if err != nil {
		t.Fatal(err)
	}
	v := new(moveVectors)
	if err := json.Unmarshal(b, v); err != nil {
		t.Fatal(err)
	}
	if len(v.MarkedSlot.Slot) != SlotSize || len(v.Records) < 5 || v.Settings.Text == "" || v.Settings.Sealed == "" {
		t.Fatal("vectors are missing")
	}
	return v
}

func TestVectorMarkedSlot(t *testing.T) {
	v := loadMoveVectors(t)
	h, err := DecodeSlot(v.MarkedSlot.Slot)
	if err != nil {
		t.Fatal(err)
	}
	if !h.Marked() || h.Mark != FileID(v.MoveID) || h.Generation != v.MarkedSlot.Generation || h.MAC != [32]byte(v.MarkedSlot.MAC) {
		t.Errorf("mark %v, generation %d, MAC %x", h.Mark, h.Generation, h.MAC)
	}
	whole := loadVectors(t).header()
	whole.Generation, whole.Mark, whole.MAC = 2, FileID(v.MoveID), [32]byte(v.MarkedSlot.MAC)
	if !bytes.Equal(whole.AppendSlot(nil), v.MarkedSlot.Slot) {
		t.Error("the slot differs from the vector")
	}
	if !bytes.Equal(h.WrapAAD(0), loadVectors(t).AAD) {
		t.Error("the mark changes the additional data of a wrap")
	}
}

func TestVectorRecords(t *testing.T) {
	v := loadMoveVectors(t)
	if all := int64(AllInSource); uint64(all) != v.AllInSource {
		t.Errorf("AllInSource is stored as %d, want %d", uint64(all), v.AllInSource)
	}
	for _, r := range v.Records {
		want := MoveRecord{
			Kind: r.Kind, Back: r.Goal == 1, Sequence: r.Sequence,
			Move: FileID(v.MoveID), Carrier: FileID(v.FileID), Companion: FileID(r.Companion),
			Watermark: int64(r.Watermark), MAC: [32]byte(r.MAC),
		}
		if got := want.AppendRecord(nil); !bytes.Equal(got, r.Record) {
			t.Errorf("sequence %d:\n got %x\nwant %x", r.Sequence, got, r.Record)
		}
		if got, err := DecodeRecord(r.Record); err != nil || *got != want {
			t.Errorf("sequence %d: %+v, %v, want %+v", r.Sequence, got, err, want)
		}
	}
}

func TestVectorPolicies(t *testing.T) {
	v := loadMoveVectors(t)
	sealed, err := ParseSettings([]byte(v.Settings.Sealed))
	if err != nil {
		t.Fatal(err)
	}
	s := &sealed.Settings
	if len(s.Moves) != 1 || len(s.Policies) != 2 || len(s.Places) != 2 {
		t.Errorf("settings %+v", s)
	}
	if got := string(s.Encode()); got != v.Settings.Text {
		t.Errorf("text:\n got %q\nwant %q", got, v.Settings.Text)
	}
}
