package backing

import (
	"encoding/binary"
	"testing"
)

func FuzzParseEntry(f *testing.F) {
	one := make([]byte, 24)
	binary.NativeEndian.PutUint16(one[16:], 24)
	copy(one[19:], "name\x00")
	f.Add(one)
	f.Add(one[:18])
	f.Add(append(one, one...))
	f.Fuzz(func(t *testing.T, b []byte) {
		for len(b) > 0 {
			e, size, err := ParseEntry(b)
			if err != nil {
				return
			}
			if size <= 0 || size > len(b) || len(e.Name) > size {
				t.Fatalf("entry of %d bytes, name of %d, in %d", size, len(e.Name), len(b))
			}
			b = b[size:]
		}
	})
}
