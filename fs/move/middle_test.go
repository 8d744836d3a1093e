package move

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"testing"

	"vmcryptfs/fs/cryptfile"
	"vmcryptfs/fs/cryptfile/faultfile"
	"vmcryptfs/keys"
	"vmcryptfs/layout"
)

// middle is a file in the middle of a move as an independent program makes one
// (layout/testdata/moves-vectors.json).
type middle struct {
	MoveID string `json:"move_id"`
	Middle struct {
		Length          int             `json:"length"`
		Kind            layout.MoveKind `json:"kind"`
		Watermark       int64           `json:"watermark"`
		CarrierSize     int64           `json:"carrier_size"`
		CarrierSHA256   string          `json:"carrier_sha256"`
		CompanionSize   int64           `json:"companion_size"`
		CompanionSHA256 string          `json:"companion_sha256"`
		ContentSHA256   string          `json:"content_sha256"`
	} `json:"middle"`
	// Of format-vectors.json: the header that the mark is put into, and its key.
	KEK      string `json:"kek"`
	Provider string `json:"provider"`
	KeyID    string `json:"key_id"`
	Slot     string `json:"slot"`
}

func loadMiddle(t *testing.T) *middle {
	t.Helper()
	v := new(middle)
	for _, name := range []string{"moves-vectors.json", "format-vectors.json"} {
		text, err := os.ReadFile("../../layout/testdata/" + name)
		must(t, err)
		must(t, json.Unmarshal(text, v))
	}
	if v.Slot == "" || v.Middle.Length == 0 {
		t.Fatal("vectors are missing")
	}
	return v
}

// scene is the vector's move, whose D has the vectors' header and DEK.
func (v *middle) scene(t *testing.T) *scene {
	t.Helper()
	kek, err := keys.NewKEK(v.Provider, v.KeyID, unhex(t, v.KEK))
	must(t, err)
	defer kek.Wipe()
	h, err := layout.DecodeSlot(unhex(t, v.Slot))
	must(t, err)
	dek, err := kek.Unwrap(h, 0)
	must(t, err)
	t.Cleanup(dek.Wipe)
	return &scene{kind: v.Middle.Kind, id: layout.FileID(unhex(t, v.MoveID)), d: side{dek, *h}, s: newSide(t)}
}

// content is byte j = (13j + 5) mod 256.
func (v *middle) content() []byte {
	b := make([]byte, v.Middle.Length)
	for j := range b {
		b[j] = byte(13*j + 5)
	}
	return b
}

// TestVectorMiddle makes the vector's two files by a begin, another process and a step, byte for
// byte, and reads the content of both.
func TestVectorMiddle(t *testing.T) {
	t.Parallel()
	v := loadMiddle(t)
	x := v.scene(t)
	disk := x.whole(t, v.content())
	p, err := x.begin(t, disk, true)
	must(t, err)
	must(t, p.Close())
	exchangeSlots(t, disk.Open("F")) // the vector's first record lies in the second slot

	p = x.found(t, disk)
	p.sizes = sizes{zone: 3 * 512, chunk: 1024, hole: 2048, back: 1536} // one zone is from the begin to the vector's W
	if done, err := p.Step(t.Context(), noPace); done || err != nil || p.Watermark() != v.Middle.Watermark {
		t.Fatalf("Step = %v, %v; W is %d", done, err, p.Watermark())
	}
	must(t, p.Close())
	checkStored(t, disk.Open("F"), v.Middle.CarrierSize, v.Middle.CarrierSHA256)
	checkStored(t, disk.Open(layout.MoveName(x.id)), v.Middle.CompanionSize, v.Middle.CompanionSHA256)

	p = x.found(t, disk)
	defer p.Close()
	if got := hash(read(t, p)); got != v.Middle.ContentSHA256 || p.Watermark() != v.Middle.Watermark {
		t.Errorf("content: SHA-256 %s, want %s; W is %d", got, v.Middle.ContentSHA256, p.Watermark())
	}
}

// found opens the move of F by what the files say, as the next process does.
func (x *scene) found(t *testing.T, disk *faultfile.Disk) *Pair {
	t.Helper()
	f := disk.Open("F")
	slots, err := cryptfile.ReadHeader(f)
	must(t, err)
	must(t, x.carrier().dek.Verify(slots.Header))
	found, err := Find(f, slots.Header, x.carrier().dek)
	must(t, err)
	carrierIsS := x.kind == layout.MoveDecrypt
	p, err := Open(found, x.half(t, f, carrierIsS), x.half(t, disk.Open(layout.MoveName(slots.Header.Mark)), !carrierIsS))
	must(t, err)
	return p
}

// exchangeSlots exchanges the records of b.
func exchangeSlots(t *testing.T, b cryptfile.Backing) {
	t.Helper()
	var blocks [2][layout.RecordBlock]byte
	for i := range blocks {
		_, err := b.ReadAt(blocks[i][:], recordOffsets[i])
		must(t, err)
	}
	for i := range blocks {
		write(t, b, blocks[i][:], recordOffsets[1-i])
	}
}

func checkStored(t *testing.T, f *faultfile.File, size int64, sum string) {
	t.Helper()
	n, err := f.Size()
	must(t, err)
	b := make([]byte, n)
	_, err = f.ReadAt(b, 0)
	must(t, err)
	if n != size || hash(b) != sum {
		t.Errorf("%d bytes stored, SHA-256 %s, want %d, %s", n, hash(b), size, sum)
	}
}

func hash(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	must(t, err)
	return b
}
