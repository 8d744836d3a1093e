package backing

import (
	"bytes"
	"path/filepath"
	"testing"

	"vmcryptfs/layout"
)

func TestHoles(t *testing.T) {
	t.Parallel()
	const block = 64 << 10 // a multiple of what file systems have holes of
	full := bytes.Repeat([]byte("x"), block)
	path := filepath.Join(t.TempDir(), "f")
	plantParts(t, path, 4*block, part{block, full}, part{2 * block, full})
	b := open(t, path)
	for _, c := range []struct{ from, to, want int64 }{
		{0, 4 * block, 2 * block},
		{0, block, block},
		{0, block / 2, block / 2},
		{block, 3 * block, 0},
		{block / 2, block + 1, block / 2},
		{3 * block, 4 * block, block},
		{3 * block, 5 * block, 2 * block},
		{block, block, 0},
	} {
		if got, err := holes(b, c.from, c.to); got != c.want || err != nil {
			t.Errorf("in [%d, %d): %d, %v, want %d", c.from, c.to, got, err, c.want)
		}
	}
}

// TestFoundHoles: the holes of an encrypted file are those of its data, with none of its header.
func TestFoundHoles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	const data = 1 << 20
	plantEncrypted(t, filepath.Join(dir, "encrypted"), header(1), header(1), data)
	plantParts(t, filepath.Join(dir, "clear"), data)
	for name, want := range map[string]int64{"encrypted": data, "clear": data} {
		b := open(t, filepath.Join(dir, name))
		found, err := Examine(t.Context(), b, layout.Verdict{Class: layout.Clear})
		must(t, err)
		if got, err := found.Holes(b); got != want || err != nil {
			t.Errorf("%s: %d bytes in holes, %v, want %d", name, got, err, want)
		}
	}
}
