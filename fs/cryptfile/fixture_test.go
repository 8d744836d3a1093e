package cryptfile_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"os"
	"testing"

	"vmcryptfs/fs/cryptfile"
	"vmcryptfs/fs/cryptfile/faultfile"
	"vmcryptfs/keys"
	"vmcryptfs/layout"
)

// vectors are the numbers computed by an independent program.
type vectors struct {
	KEK      string `json:"kek"`
	Provider string `json:"provider"`
	KeyID    string `json:"key_id"`
	Slot     string `json:"slot"`
	Files    []struct {
		Length  int64  `json:"length"`
		Rule    string `json:"rule"`
		Size    int64  `json:"backing_size"`
		SHA256  string `json:"backing_sha256"`
		TailHex string `json:"tail"`
	} `json:"files"`
}

func loadVectors(t testing.TB) *vectors {
	t.Helper()
	text, err := os.ReadFile("../../layout/testdata/format-vectors.json")
	if err != nil {
		t.Fatal(err)
	}
	v := new(vectors)
	if err := json.Unmarshal(text, v); err != nil {
		t.Fatal(err)
	}
	if v.Slot == "" || len(v.Files) == 0 {
		t.Fatal("no vectors in format-vectors.json")
	}
	return v
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// fixture is the header of the vectors with its key. One fixture serves many files.
type fixture struct {
	kek    *keys.KEK
	header *layout.Header
}

func newFixture(t testing.TB) *fixture {
	t.Helper()
	v := loadVectors(t)
	kek, err := keys.NewKEK(v.Provider, v.KeyID, unhex(t, v.KEK))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(kek.Wipe)
	h, err := layout.DecodeSlot(unhex(t, v.Slot))
	if err != nil {
		t.Fatal(err)
	}
	return &fixture{kek, h}
}

func (x *fixture) dek(t testing.TB) *keys.DEK {
	t.Helper()
	dek, err := x.kek.Unwrap(x.header, 0)
	if err != nil {
		t.Fatal(err)
	}
	return dek
}

// create formats b and opens the file.
func (x *fixture) create(t testing.TB, b cryptfile.Backing) *cryptfile.File {
	t.Helper()
	if err := cryptfile.Format(b, x.header); err != nil {
		t.Fatal(err)
	}
	return x.open(t, b)
}

// open opens b as a mount does: header, key, file.
func (x *fixture) open(t testing.TB, b cryptfile.Backing) *cryptfile.File {
	t.Helper()
	slots, err := cryptfile.ReadHeader(b)
	if err != nil {
		t.Fatal(err)
	}
	dek, err := x.kek.Unwrap(slots.Header, 0)
	if err != nil {
		t.Fatal(err)
	}
	f, err := cryptfile.Open(b, dek)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// newDisk returns a disk with one encrypted file "f" of the content, all synced.
func (x *fixture) newDisk(t testing.TB, content []byte) (*faultfile.Disk, *cryptfile.File) {
	t.Helper()
	d := faultfile.New()
	b := d.Create()
	f := x.create(t, b)
	must(t, d.Link(b, "f"))
	write(t, f, content, 0)
	if f.Size() != int64(len(content)) {
		t.Fatalf("size %d after a write of %d", f.Size(), len(content))
	}
	d.Record()
	return d, f
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// write writes a copy of p: File.WriteAt turns its argument into noise.
func write(t testing.TB, f *cryptfile.File, p []byte, off int64) {
	t.Helper()
	if n, err := f.WriteAt(bytes.Clone(p), off, cryptfile.Volatile); n != len(p) || err != nil {
		t.Fatalf("WriteAt(%d bytes, %d) = %d, %v", len(p), off, n, err)
	}
}

// content reads the whole file with one request, and checks the bytes past the end.
func content(t testing.TB, f *cryptfile.File) []byte {
	t.Helper()
	size := int(f.Size())
	p := bytes.Repeat([]byte{0xee}, size+1025)
	n, err := f.ReadAt(p, 0)
	if n != size || err != nil {
		t.Fatalf("ReadAt of %d bytes = %d, %v", size, n, err)
	}
	for i, c := range p[n:] {
		if c != 0 && c != 0xee {
			t.Fatalf("ReadAt left %#x at %d, %d past the end", c, n+i, i)
		}
	}
	return p[:n]
}

// pattern returns n bytes that differ from those of another seed at each place, and in each unit.
func pattern(n int, seed byte) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(i*7+i/512*13) ^ seed
		if p[i] == 0 {
			p[i] = seed | 1
		}
	}
	return p
}

// resized is p with zeros or cut, to n bytes.
func resized(p []byte, n int) []byte {
	q := make([]byte, n)
	copy(q, p)
	return q
}

// edges are sizes and offsets around every boundary of blocks, units and pages.
var edges = []int{0, 1, 15, 16, 17, 511, 512, 513, 1000, 1023, 1024, 1025, 4095, 4096, 4097, 5001}
