package cryptoblk

import (
	"bytes"
	"crypto/aes"
	"math"
	"testing"

	"golang.org/x/crypto/xts"
)

// xtsEncrypt is Encrypt done by golang.org/x/crypto/xts, a unit at a time. Unit
// numbers must not pass 2^64 - 1.
func xtsEncrypt(t testing.TB, key, src []byte, unit uint64) []byte {
	t.Helper()
	ref, err := xts.NewCipher(aes.NewCipher, key)
	if err != nil {
		t.Fatal(err)
	}
	dst := make([]byte, len(src))
	for i := 0; i < len(src); i += UnitSize {
		end := min(i+UnitSize, len(src))
		ref.Encrypt(dst[i:end], src[i:end], unit)
		unit++
	}
	return dst
}

// units are the unit numbers at which a counter of some width would break.
var units = []uint64{
	0, 1, 7, 255, 256, 1<<32 - 9, 1<<32 - 1, 1 << 32, 1<<32 + 1, 1<<40 + 7, 1<<63 - 1,
	math.MaxUint64 - 200, math.MaxUint64 - 130,
}

func TestAgainstReference(t *testing.T) {
	t.Parallel()
	const longest = 64 << 10
	everywhere(t, func(t *testing.T, impl implementation) {
		c := mustCipher(t, impl, testKey)
		plain := random(2, longest)
		for _, unit := range units {
			want := xtsEncrypt(t, testKey, plain, unit)
			got := make([]byte, longest)
			for n := blockSize; n <= longest; n = longer(n) {
				c.Encrypt(got, plain[:n], unit)
				if !bytes.Equal(got[:n], want[:n]) {
					t.Fatalf("unit %d, %d bytes: encrypt differs at byte %d", unit, n, firstDifference(got, want))
				}
				c.Decrypt(got, want[:n], unit)
				if !bytes.Equal(got[:n], plain[:n]) {
					t.Fatalf("unit %d, %d bytes: decrypt differs at byte %d", unit, n, firstDifference(got, plain))
				}
			}
		}
	})
}

// longer steps through lengths: every multiple of 16 up to five units, then each
// around a multiple of 512.
func longer(n int) int {
	switch {
	case n < 5*UnitSize:
		return n + blockSize
	case n%UnitSize == blockSize:
		return n + UnitSize - 2*blockSize
	default:
		return n + blockSize
	}
}

func firstDifference(a, b []byte) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	return -1
}
