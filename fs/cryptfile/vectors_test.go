package cryptfile_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"testing"

	"vmcryptfs/fs/cryptfile/faultfile"
)

// Whole files equal the independent program's, whether written at once, in pieces, or grown byte
// by byte from nothing.
func TestWholeFileVectors(t *testing.T) {
	t.Parallel()
	x := newFixture(t)
	for _, v := range loadVectors(t).Files {
		t.Run(fmt.Sprint(v.Length), func(t *testing.T) {
			if v.Rule != "byte j = (13j + 5) mod 256" {
				t.Fatalf("unknown rule %q", v.Rule)
			}
			plain := make([]byte, v.Length)
			for j := range plain {
				plain[j] = byte(13*j + 5)
			}
			for _, step := range []int{len(plain) + 1, 512, 700, 100} {
				b := faultfile.New().Create()
				f := x.create(t, b)
				for at := 0; at < len(plain); at += step {
					write(t, f, plain[at:min(at+step, len(plain))], int64(at))
				}
				size, _ := b.Size()
				stored := make([]byte, size)
				b.ReadAt(stored, 0)
				if size != v.Size {
					t.Errorf("in pieces of %d: backing size %d, want %d", step, size, v.Size)
				}
				if sum := sha256.Sum256(stored); hex.EncodeToString(sum[:]) != v.SHA256 {
					t.Errorf("in pieces of %d: backing SHA-256 %x, want %s", step, sum, v.SHA256)
				}
				if tail := unhex(t, v.TailHex); !bytes.HasSuffix(stored, tail) {
					t.Errorf("in pieces of %d: tail is not %x", step, tail)
				}
				if got := content(t, f); !bytes.Equal(got, plain) {
					t.Errorf("in pieces of %d: reads back otherwise", step)
				}
			}
		})
	}
}
