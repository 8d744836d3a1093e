package backing

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"vmcryptfs/layout"
)

// The files of the tests below.
var (
	testMove      = layout.FileID{1, 2, 3, 4, 5, 6, 0x47, 8, 0x89}
	testCarrier   = layout.FileID{1}
	testCompanion = layout.FileID{2}
)

// movingHeader encodes a slot.
func movingHeader(id, mark layout.FileID) []byte {
	return (&layout.Header{Generation: 1, FileID: id, Mark: mark}).AppendSlot(nil)
}

func testRecord(kind layout.MoveKind, sequence uint64, w int64) layout.MoveRecord {
	r := layout.MoveRecord{Kind: kind, Sequence: sequence, Move: testMove, Carrier: testCarrier, Watermark: w}
	if kind == layout.MoveDeep {
		r.Companion = testCompanion
	}
	return r
}

// plantCarrier makes the carrier F in dir, of so many bytes of content, with records.
func plantCarrier(t *testing.T, dir string, size int64, records ...layout.MoveRecord) {
	t.Helper()
	h := movingHeader(testCarrier, testMove)
	parts := []part{{0, h}, {inSlotB, h}}
	for i, at := range []int64{layout.RecordAOffset, layout.RecordBOffset} {
		if i < len(records) {
			parts = append(parts, part{at, records[i].AppendRecord(nil)})
		}
	}
	plantParts(t, filepath.Join(dir, "F"), layout.DataOffset+size, parts...)
}

func findMove(t *testing.T, dir, name string) (*Move, error) {
	t.Helper()
	return FindMove(t.Context(), openDir(t, dir), name, open(t, filepath.Join(dir, name)))
}

// Forms of the companion in a carrierCase.
const (
	recorded  = ""      // encrypted, with the recorded file id
	none      = "none"  // there is no companion
	clearForm = "clear" // in clear
	other     = "other" // encrypted, with another file id
)

// carrierCase is a carrier F with a companion.
type carrierCase struct {
	name          string
	kind          layout.MoveKind
	w             int64
	size          int64 // of the carrier's content
	form          string
	companionSize int64
	want          int64  // size of the whole file
	says          string // the damage
}

func carrierCases() []carrierCase {
	const all = layout.AllInSource
	const encrypt, decrypt, deep = layout.MoveEncrypt, layout.MoveDecrypt, layout.MoveDeep
	return []carrierCase{
		{"encrypt", encrypt, 1024, 4096, clearForm, 1024, 4096, ""},
		{"encrypt, longer than W", encrypt, 1024, 4096, clearForm, 3000, 4096, ""},
		{"encrypt, shorter than W", encrypt, 1024, 4096, clearForm, 1023, 0, "ends at 1023, and should end at 1024"},
		{"encrypt, a shrink cut off", encrypt, 1024, 512, clearForm, 1024, 512, ""},
		{"encrypt, no companion", encrypt, 1024, 4096, none, 0, 0, "is missing"},
		{"encrypt, another form", encrypt, 1024, 4096, recorded, 2048, 0, "of another form"},
		{"encrypt, done", encrypt, 0, 4096, none, 0, 4096, ""},
		{"encrypt, back", encrypt, all, 4096, clearForm, 3000, 3000, ""},
		{"encrypt, back, no companion", encrypt, all, 4096, none, 0, 0, "is missing"},
		{"decrypt", decrypt, 1024, 1024, clearForm, 3000, 3000, ""},
		{"decrypt, source shorter than W", decrypt, 1024, 512, clearForm, 3000, 0, "ends at 512"},
		{"decrypt, not begun", decrypt, all, 4096, none, 0, 4096, ""},
		{"decrypt, done", decrypt, 0, 0, clearForm, 3000, 3000, ""},
		{"decrypt, done, no companion", decrypt, 0, 0, none, 0, 0, "is missing"},
		{"deep", deep, 1024, 4096, recorded, 1024, 4096, ""},
		{"deep, another file", deep, 1024, 4096, other, 1024, 0, "another file"},
		{"deep, another form", deep, 1024, 4096, clearForm, 4096, 0, "of another form"},
		{"deep, shorter than W", deep, 1024, 4096, recorded, 512, 0, "ends at 512"},
		{"deep, done", deep, 0, 4096, none, 0, 4096, ""},
	}
}

// plant makes the files of c in dir.
func (c *carrierCase) plant(t *testing.T, dir string) {
	t.Helper()
	plantCarrier(t, dir, c.size, testRecord(c.kind, 2, 512), testRecord(c.kind, 3, c.w))
	companion := filepath.Join(dir, layout.MoveName(testMove))
	switch c.form {
	case none:
	case clearForm:
		plantParts(t, companion, c.companionSize)
	default:
		id := testCompanion
		if c.form == other {
			id = layout.FileID{9}
		}
		h := movingHeader(id, layout.FileID{})
		plantEncrypted(t, companion, h, h, c.companionSize)
	}
}

// TestFindCarrier: size, and what is damage, by the kind and the record.
func TestFindCarrier(t *testing.T) {
	t.Parallel()
	for _, c := range carrierCases() {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			c.plant(t, dir)
			m, err := findMove(t, dir, "F")
			if m == nil || m.Role != Carrier || m.ID != testMove || *m.Record != testRecord(c.kind, 3, c.w) || (m.Other == "") != (c.form == none) {
				t.Fatalf("found %+v, %v", m, err)
			}
			if c.says == "" && (err != nil || m.Size != c.want || m.Holes != c.want) {
				t.Errorf("size %d, %d in holes, %v, want %d", m.Size, m.Holes, err, c.want)
			}
			if c.says != "" && (!errors.Is(err, layout.ErrDamaged) || !strings.Contains(err.Error(), c.says)) {
				t.Errorf("error %v, want damage: %q", err, c.says)
			}
		})
	}
}

// TestFindRecord: of two records the higher sequence, of this move and this file; none is damage.
func TestFindRecord(t *testing.T) {
	t.Parallel()
	right, foreign, elsewhere := testRecord(layout.MoveEncrypt, 7, 0), testRecord(layout.MoveEncrypt, 9, 0), testRecord(layout.MoveEncrypt, 8, 0)
	foreign.Move, elsewhere.Carrier = layout.FileID{9}, layout.FileID{9}
	for _, c := range []struct {
		name    string
		records []layout.MoveRecord
		want    uint64
	}{
		{"first", []layout.MoveRecord{right}, 7},
		{"higher", []layout.MoveRecord{right, testRecord(layout.MoveEncrypt, 6, 0)}, 7},
		{"of another move", []layout.MoveRecord{foreign, right}, 7},
		{"of another file", []layout.MoveRecord{right, elsewhere}, 7},
		{"neither", []layout.MoveRecord{foreign, elsewhere}, 0},
		{"none", nil, 0},
	} {
		dir := t.TempDir()
		plantCarrier(t, dir, 4096, c.records...)
		m, err := findMove(t, dir, "F")
		switch {
		case c.want == 0 && (m == nil || m.Record != nil || !errors.Is(err, layout.ErrDamaged)):
			t.Errorf("%s: %+v, %v, want damage", c.name, m, err)
		case c.want > 0 && (err != nil || m.Record.Sequence != c.want):
			t.Errorf("%s: %+v, %v, want sequence %d", c.name, m, err, c.want)
		}
	}
	dir := t.TempDir()
	plantCarrier(t, dir, 4096, right)
	newer := right.AppendRecord(nil)
	newer[8] = 2
	f, err := os.OpenFile(filepath.Join(dir, "F"), os.O_RDWR, 0)
	must(t, err)
	defer f.Close()
	_, err = f.WriteAt(newer, layout.RecordBOffset)
	must(t, err)
	if _, err := findMove(t, dir, "F"); !errors.Is(err, layout.ErrUnsupported) {
		t.Errorf("a newer record: %v", err)
	}
}

// TestFindCompanion: a companion is one by its name, and the carrier is found by its mark.
func TestFindCompanion(t *testing.T) {
	t.Parallel()
	for _, name := range []string{layout.MoveName(testMove), layout.GoneName(testMove)} {
		dir := t.TempDir()
		plantParts(t, filepath.Join(dir, name), 4096)
		plantParts(t, filepath.Join(dir, "another"), layout.DataOffset, part{0, bytes.Repeat([]byte("x"), 100)})
		m, err := findMove(t, dir, name)
		if err != nil || m.Role != Companion || m.ID != testMove || m.Name != name || m.Other != "" || m.CutOff || m.Record != nil {
			t.Errorf("%s alone: %+v, %v", name, m, err)
		}
		plantCarrier(t, dir, 4096, testRecord(layout.MoveEncrypt, 1, 4096))
		if m, err = findMove(t, dir, name); err != nil || m.Other != "F" || m.Record == nil {
			t.Errorf("%s beside F: %+v, %v", name, m, err)
		}
		if m, err := findMove(t, dir, "another"); m != nil || err != nil {
			t.Errorf("a file that does not move: %+v, %v", m, err)
		}
		if m, err := findMove(t, dir, "F"); err != nil || m.Other != name {
			t.Errorf("F: %+v, %v", m, err)
		}
	}
}

// TestFindCutOff: a begin that was cut off leaves D itself, or a second link, with the companion's name.
func TestFindCutOff(t *testing.T) {
	t.Parallel()
	name := layout.MoveName(testMove)
	dir := t.TempDir()
	plantCarrier(t, dir, 4096, testRecord(layout.MoveEncrypt, 1, 4096))
	must(t, os.Rename(filepath.Join(dir, "F"), filepath.Join(dir, name)))
	if m, err := findMove(t, dir, name); err != nil || !m.CutOff {
		t.Errorf("marked: %+v, %v", m, err)
	}
	dir = t.TempDir()
	plantParts(t, filepath.Join(dir, "F"), 4096)
	must(t, os.Link(filepath.Join(dir, "F"), filepath.Join(dir, name)))
	if m, err := findMove(t, dir, name); err != nil || !m.CutOff {
		t.Errorf("linked: %+v, %v", m, err)
	}
}
