package integration

import (
	"bytes"
	"fmt"
	"os"
	"testing"
)

// storedCase is a stored data length with its logical length (design §3).
type storedCase struct{ stored, logical int64 }

// storedCases are stored lengths of every kind; below one unit none but 0 is written by
// the program itself.
func storedCases() []storedCase {
	cases := []storedCase{{0, 0}, {1, 0}, {15, 0}, {16, 0}, {100, 0}, {511, 0}, {512, 512}, {513, 1}, {528, 16}, {1023, 511}, {1024, 1024}, {1025, 513}, {1535, 1023}, {4096, 4096}, {4097, 3585}}
	for s := int64(5000); s < 5300; s += 37 {
		logical := s - unitSize
		if s%unitSize == 0 {
			logical = s
		}
		cases = append(cases, storedCase{s, logical})
	}
	return cases
}

// TestStoredLengths makes files of every stored length, with garbage in padding and spill, as a
// crash or somebody with access to BACKING may leave the files. No garbage is ever seen, even
// after growth.
func TestStoredLengths(t *testing.T) {
	t.Parallel()
	d := newDatastore(t)
	d.Write("reference.img", plainText)
	keyID, kek := d.currentKey("reference.img")
	cases := storedCases()
	for i, c := range cases {
		for how, grow := range growths() {
			file, plain := dirty(newForgery("dev", keyID, kek), c)
			name := fmt.Sprintf("stored-%d-%s.img", c.stored, how)
			if err := os.WriteFile(d.Below(name), file, 0o644); err != nil {
				t.Fatal(err)
			}
			if st, err := os.Stat(d.Path(name)); err != nil || st.Size() != c.logical {
				t.Fatalf("%s: size %v (%v), want %d", name, st, err, c.logical)
			}
			wantSame(t, name, d.Read(name), plain)
			want, err := grow(d.Path(name), plain)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			wantSame(t, name+" grown", d.Read(name), want)
		}
		if i%8 == 0 {
			d.Remount()
		}
	}
	d.verify()
	t.Logf("%d stored lengths, each grown in %d ways", len(cases), len(growths()))
}

// dirty makes a file of the stored length: whole data units, all of them and the spill random,
// and the plaintext below the logical length.
func dirty(f forgery, c storedCase) (file, plain []byte) {
	whole := random(int(c.stored/unitSize) * unitSize)
	file = image(f.slot(), sealData(f.dek, whole))
	file = append(file, random(int(c.stored%unitSize))...)
	return file, whole[:c.logical]
}

// growths are the ways of growing a file past its end; each returns the file's required content.
func growths() map[string]func(path string, old []byte) ([]byte, error) {
	zeros := func(n int) []byte { return make([]byte, n) }
	return map[string]func(string, []byte) ([]byte, error){
		"truncate": func(path string, old []byte) ([]byte, error) {
			n := len(old) + 1700
			return append(bytes.Clone(old), zeros(1700)...), os.Truncate(path, int64(n))
		},
		"unit": func(path string, old []byte) ([]byte, error) {
			n := (len(old)/unitSize + 1) * unitSize
			return append(bytes.Clone(old), zeros(n-len(old))...), os.Truncate(path, int64(n))
		},
		"write": func(path string, old []byte) ([]byte, error) {
			want := append(append(bytes.Clone(old), zeros(700)...), "end"...)
			return want, pwriteFile(path, "end", int64(len(old)+700))
		},
		"append": func(path string, old []byte) ([]byte, error) {
			return append(bytes.Clone(old), "more"...), pwriteFile(path, "more", int64(len(old)))
		},
		"shrink": func(path string, old []byte) ([]byte, error) {
			n := len(old) / 2
			if err := os.Truncate(path, int64(n)); err != nil {
				return nil, err
			}
			return append(bytes.Clone(old[:n]), zeros(2000)...), os.Truncate(path, int64(n+2000))
		},
	}
}

func pwriteFile(path, s string, off int64) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	if _, err := f.WriteAt([]byte(s), off); err != nil {
		_ = f.Close()
		return err
	}
	return f.Close()
}
