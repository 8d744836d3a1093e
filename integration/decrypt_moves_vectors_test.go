package integration

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"testing"
)

// moveVectors are layout/testdata/moves-vectors.json, made by a program independent of the product
// and of this test.
type moveVectors struct {
	KEK        hexBytes `json:"kek"`
	DEK        hexBytes `json:"dek"`
	FileID     hexBytes `json:"file_id"`
	MoveID     hexBytes `json:"move_id"`
	MarkedSlot struct {
		Generation uint64   `json:"generation"`
		MAC        hexBytes `json:"mac"`
		SHA256     string   `json:"sha256"`
		Slot       hexBytes `json:"slot"`
	} `json:"marked_slot"`
	Records []struct {
		Kind      byte     `json:"kind"`
		Goal      int      `json:"goal"`
		Sequence  uint64   `json:"sequence"`
		Companion hexBytes `json:"companion"`
		Watermark uint64   `json:"watermark"`
		MAC       hexBytes `json:"mac"`
		Record    hexBytes `json:"record"`
	} `json:"records"`
	Middle struct {
		Length          int    `json:"length"`
		Kind            byte   `json:"kind"`
		Watermark       int    `json:"watermark"`
		Generation      uint64 `json:"generation"`
		CarrierSize     int64  `json:"carrier_size"`
		CarrierSHA256   string `json:"carrier_sha256"`
		CompanionSHA256 string `json:"companion_sha256"`
		ContentSHA256   string `json:"content_sha256"`
	} `json:"middle"`
}

func readMoveVectors(t *testing.T) moveVectors {
	t.Helper()
	b, err := os.ReadFile("../layout/testdata/moves-vectors.json")
	if err != nil {
		t.Fatal(err)
	}
	var v moveVectors
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatal(err)
	}
	if len(v.MarkedSlot.Slot) != slotSize || len(v.Records) < 5 || v.Middle.Length == 0 {
		t.Fatalf("moves-vectors.json: slot of %d bytes, %d records", len(v.MarkedSlot.Slot), len(v.Records))
	}
	return v
}

// forgery is the vectors' moving file of a kind.
func (v moveVectors) forgery(t *testing.T, kind byte) movingForgery {
	whole := readVectors(t)
	return movingForgery{carrier: forgery{keyID: whole.KeyID, kek: v.KEK, dek: v.DEK, fileID: v.FileID}, move: v.MoveID, kind: kind}
}

func TestDecryptorAgreesWithMarkedSlot(t *testing.T) {
	t.Parallel()
	v := readMoveVectors(t)
	slot := v.MarkedSlot.Slot
	if !wellFormed(slot) || checkFixed(slot) != nil || !marked(slot) || generation(slot) != v.MarkedSlot.Generation {
		t.Fatalf("the slot is refused: %v", checkFixed(slot))
	}
	if got := sha256Hex(slot[:atSHA]); got != v.MarkedSlot.SHA256 {
		t.Errorf("SHA-256 %s, want %s", got, v.MarkedSlot.SHA256)
	}
	keks := map[string][]byte{readVectors(t).KeyID: v.KEK}
	dek, _, err := unlock(slot, keks)
	if err != nil || !bytes.Equal(dek, v.DEK) {
		t.Errorf("DEK %x, %v", dek, err)
	}
	for _, at := range []int{atMark, atReserved2 - 1} {
		other := bytes.Clone(slot)
		other[at]++
		if _, _, err := unlock(resum(other), keks); err == nil {
			t.Errorf("byte %d is not covered by the MAC", at)
		}
	}
	if _, err := openPlain(bytes.NewReader(image(slot, nil)), dataStart, keks); err == nil {
		t.Error("half of a moving file opens as a whole one")
	}
}

func TestDecryptorAgreesWithRecords(t *testing.T) {
	t.Parallel()
	v := readMoveVectors(t)
	for _, r := range v.Records {
		m := v.forgery(t, r.Kind)
		m.companion.fileID = r.Companion
		forged := m.record(r.Sequence, r.Watermark)
		forged[atRecordGoal] = byte(r.Goal)
		if got := m.sealRecord(forged); !bytes.Equal(got, r.Record) {
			t.Errorf("sequence %d:\n got %x\nwant %x", r.Sequence, got, r.Record)
		}
		c := withRecords(image(v.MarkedSlot.Slot, nil), nil, r.Record)
		got, err := provenRecord(bytes.NewReader(c), v.DEK, v.MarkedSlot.Slot)
		if err != nil || got.kind != r.Kind || got.back != (r.Goal == 1) || got.sequence != r.Sequence || got.watermark != r.Watermark || !bytes.Equal(got.companion, r.Companion) {
			t.Errorf("sequence %d: %+v, %v", r.Sequence, got, err)
		}
	}
}

// TestDecryptorAgreesWithMiddle makes the two files of the vector, byte for byte, and reads them.
func TestDecryptorAgreesWithMiddle(t *testing.T) {
	t.Parallel()
	v := readMoveVectors(t)
	plain := middleContent(v.Middle.Length)
	m := v.forgery(t, v.Middle.Kind)
	slot := m.mark(bytes.Clone(readVectors(t).Slot))
	p := v.Middle.Length / unitSize * unitSize
	d := append(make([]byte, v.Middle.Watermark), plain[v.Middle.Watermark:]...)
	carrier := withRecords(image(slot, m.sealBelow(d, v.Middle.Watermark)), m.record(2, uint64(v.Middle.Watermark)), m.record(1, uint64(p)))
	companion := plain[:v.Middle.Watermark]
	if got := sha256Hex(carrier); int64(len(carrier)) != v.Middle.CarrierSize || got != v.Middle.CarrierSHA256 {
		t.Errorf("carrier of %d bytes, SHA-256 %s, want %d, %s", len(carrier), got, v.Middle.CarrierSize, v.Middle.CarrierSHA256)
	}
	if got := sha256Hex(companion); got != v.Middle.CompanionSHA256 {
		t.Errorf("companion: SHA-256 %s, want %s", got, v.Middle.CompanionSHA256)
	}
	got, err := readMoving(inMemory(carrier), inMemory(companion), map[string][]byte{readVectors(t).KeyID: v.KEK})
	if err != nil || sha256Hex(got) != v.Middle.ContentSHA256 {
		t.Errorf("content: SHA-256 %s, %v, want %s", sha256Hex(got), err, v.Middle.ContentSHA256)
	}
}

// middleContent is the content of the vector: byte j = (13j + 5) mod 256.
func middleContent(n int) []byte {
	b := make([]byte, n)
	for j := range b {
		b[j] = byte(13*j + 5)
	}
	return b
}

// movingCase is a moving file that is right, or wrong in one point.
type movingCase struct {
	name      string
	kind      byte
	size, w   int
	all       bool // the record says that all is in S
	change    func(m movingForgery, carrier, companion []byte) ([]byte, []byte)
	want      error // nil with fails: any
	fails     bool
	wantBytes int // of the content; 0: all
}

// TestDecryptorOfMovingFiles reads the content of all kinds, and refuses what is not whole.
func TestDecryptorOfMovingFiles(t *testing.T) {
	t.Parallel()
	keks := map[string][]byte{"1": random(32)}
	for _, kind := range []byte{kindEncrypt, kindDecrypt, kindDeep} {
		for _, c := range movingCases(kind) {
			t.Run(c.name, func(t *testing.T) {
				m := newMovingForgery(kind, "1", keks["1"])
				plain := middleContent(c.size)
				carrier, companion := m.halves(plain, c.w)
				w := uint64(c.w)
				if c.all {
					w = allInSource
				}
				carrier = withRecords(carrier, m.record(7, w), m.record(6, uint64(c.size)/unitSize*unitSize))
				if c.change != nil {
					carrier, companion = c.change(m, carrier, companion)
				}
				var other *storedFile
				if companion != nil {
					other = inMemory(companion)
				}
				got, err := readMoving(inMemory(carrier), other, keks)
				if c.fails || c.want != nil {
					if err == nil || c.want != nil && !errors.Is(err, c.want) {
						t.Fatalf("%d bytes, error %v, want %v", len(got), err, c.want)
					}
					return
				}
				if want := plain[:c.length()]; err != nil || !bytes.Equal(got, want) {
					t.Fatalf("%d bytes, want %d, equal %v, error %v", len(got), len(want), bytes.Equal(got, want), err)
				}
			})
		}
	}
}

func (c movingCase) length() int {
	if c.wantBytes > 0 {
		return c.wantBytes
	}
	return c.size
}

// movingCases are the cases of a kind.
func movingCases(kind byte) []movingCase {
	none := func(_ movingForgery, carrier, _ []byte) ([]byte, []byte) { return carrier, nil }
	cases := append(wholeCases(kind),
		movingCase{name: "no companion", size: 3000, w: 1024, change: none, want: errNoCompanion},
		movingCase{name: "another's companion", size: 3000, w: 1024, change: foreign, want: errCompanion},
		movingCase{name: "source shorter than W", size: 3000, w: 1024, change: shortSource, want: errCompanion},
		movingCase{name: "no record", size: 3000, w: 1024, want: errNoRecord, change: func(_ movingForgery, carrier, companion []byte) ([]byte, []byte) {
			return withRecords(carrier, make([]byte, recordSize), make([]byte, recordSize)), companion
		}},
		movingCase{name: "newer record damaged", size: 3000, w: 1024, change: damagedRecord},
		movingCase{name: "mark taken away", size: 3000, w: 1024, fails: true, change: unmark},
		movingCase{name: "mark of another move", size: 3000, w: 1024, want: errNoRecord, change: remark},
		movingCase{name: "record of another move", size: 3000, w: 1024, want: errNoRecord, change: otherMove},
		movingCase{name: "record of another file", size: 3000, w: 1024, want: errNoRecord, change: otherFile},
	)
	for i := range cases {
		cases[i].kind = kind
	}
	return cases
}

// wholeCases are the states whose content is whole.
func wholeCases(kind byte) []movingCase {
	none := func(_ movingForgery, carrier, _ []byte) ([]byte, []byte) { return carrier, nil }
	cases := []movingCase{
		{name: "middle", size: 3000, w: 1024},
		{name: "begun", size: 3000, w: 2560},
		{name: "begun in units", size: 2560, w: 2560},
		{name: "all in S", size: 3000, w: 3000, all: true},
		{name: "all in D", size: 3000},
		{name: "empty", size: 0},
		{name: "source longer than W", size: 3000, w: 1024, change: longSource},
		{name: "shrink cut off", size: 3000, w: 2048, wantBytes: 700, change: shrunk},
	}
	if kind == kindDecrypt {
		return append(cases,
			movingCase{name: "all in S, D not made", size: 3000, w: 3000, all: true, change: none},
			movingCase{name: "all in D, which is missing", size: 3000, change: none, want: errNoCompanion})
	}
	return append(cases,
		movingCase{name: "all in D, S removed", size: 3000, change: none},
		movingCase{name: "all in S, which is missing", size: 3000, w: 3000, all: true, change: none, want: errNoCompanion})
}

// foreign gives the carrier another file's companion: of another form, or with another file id.
func foreign(m movingForgery, carrier, companion []byte) ([]byte, []byte) {
	return carrier, newForgery("corp", m.carrier.keyID, m.carrier.kek).file(make([]byte, 2048))
}

// resizeSource changes S, by n bytes of content.
func (m movingForgery) resizeSource(carrier, companion []byte, n int) ([]byte, []byte) {
	resized := func(b []byte) []byte {
		if n < 0 {
			return b[:len(b)+n]
		}
		return append(bytes.Clone(b), random(n)...)
	}
	if m.kind == kindDecrypt {
		return resized(carrier), companion
	}
	return carrier, resized(companion)
}

func shortSource(m movingForgery, carrier, companion []byte) ([]byte, []byte) {
	return m.resizeSource(carrier, companion, -unitSize)
}

func longSource(m movingForgery, carrier, companion []byte) ([]byte, []byte) {
	return m.resizeSource(carrier, companion, 3*unitSize)
}

// shrunk cuts D off at 700 bytes, below W, as a shrink does before its record.
func shrunk(m movingForgery, carrier, companion []byte) ([]byte, []byte) {
	if m.kind == kindDecrypt {
		return carrier, companion[:700]
	}
	return carrier[:dataStart+2*unitSize+700-unitSize], companion
}

// damagedRecord puts a record with a higher sequence and a wrong MAC over the older one.
func damagedRecord(m movingForgery, carrier, companion []byte) ([]byte, []byte) {
	wrong := m.record(8, 512)
	wrong[atRecordMAC]++
	copy(carrier[recordB:], wrong)
	return carrier, companion
}

// setMark changes the mark in both slots, and their checksums alone.
func setMark(carrier, mark []byte) []byte {
	for _, at := range []int{0, slotB} {
		slot := carrier[at:][:slotSize]
		copy(slot[atMark:], mark)
		resum(slot)
	}
	return carrier
}

func unmark(_ movingForgery, carrier, companion []byte) ([]byte, []byte) {
	return setMark(carrier, make([]byte, 16)), companion
}

// remark gives the carrier the proven mark of another move.
func remark(m movingForgery, carrier, companion []byte) ([]byte, []byte) {
	m.move = random(16)
	slot := m.mark(bytes.Clone(carrier[:slotSize]))
	copy(carrier, slot)
	copy(carrier[slotB:], slot)
	return carrier, companion
}

func otherMove(m movingForgery, carrier, companion []byte) ([]byte, []byte) {
	m.move = random(16)
	return withRecords(carrier, m.record(8, 1024), m.record(9, 1024)), companion
}

// otherFile makes records with the MAC key of the carrier, and another file's id in them.
func otherFile(m movingForgery, carrier, companion []byte) ([]byte, []byte) {
	b := m.record(8, 1024)
	copy(b[atRecordCarrier:], random(16))
	m.sealRecord(b)
	return withRecords(carrier, b, b), companion
}
