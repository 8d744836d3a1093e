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

// units are the unit numbers where a counter of some width would break.
var units = []uint64{
	0, 1, 7, 255, 256, 1<<32 - 9, 1<<32 - 1, 1 << 32, 1<<32 + 1, 1<<40 + 7, 1<<63 - 1,
	math.MaxUint64 - 200, math.MaxUint64 - 130,
}

// TestAgainstReference takes every length up to 64 KiB, and all interesting lengths from each
// unit number.
func TestAgainstReference(t *testing.T) {
	t.Parallel()
	const longest = 64 << 10
	plain := random(2, longest)
	for i, unit := range units {
		next := longer
		if i == 0 {
			next = func(n int) int { return n + blockSize }
		}
		want := xtsEncrypt(t, testKey, plain, unit)
		everywhere(t, func(t *testing.T, impl implementation) {
			c := mustCipher(t, impl, testKey)
			got := make([]byte, longest)
			for n := blockSize; n <= longest; n = next(n) {
				c.Encrypt(got, plain[:n], unit)
				if !bytes.Equal(got[:n], want[:n]) {
					t.Fatalf("unit %d, %d bytes: encrypt differs at byte %d", unit, n, firstDifference(got, want))
				}
				c.Decrypt(got, want[:n], unit)
				if !bytes.Equal(got[:n], plain[:n]) {
					t.Fatalf("unit %d, %d bytes: decrypt differs at byte %d", unit, n, firstDifference(got, plain))
				}
			}
		})
	}
}

// longer steps through lengths: every multiple of 16 up to five units, then the
// three at a multiple of 512, until units are many.
func longer(n int) int {
	switch {
	case n < 5*UnitSize:
		return n + blockSize
	case n > 40*UnitSize:
		return n + 7*UnitSize
	case n%UnitSize == blockSize:
		return n + UnitSize - 2*blockSize
	default:
		return n + blockSize
	}
}

// TestLongRuns takes runs longer than one call of a kernel.
func TestLongRuns(t *testing.T) {
	t.Parallel()
	const longest = 1<<20 + 5*UnitSize
	plain := random(13, longest)
	want := xtsEncrypt(t, testKey, plain, 1<<32-1000)
	everywhere(t, func(t *testing.T, impl implementation) {
		c := mustCipher(t, impl, testKey)
		for _, n := range []int{128<<10 - UnitSize, 128 << 10, 128<<10 + UnitSize, 256<<10 + 7*blockSize, 1 << 20, longest} {
			got := bytes.Clone(plain[:n])
			c.Encrypt(got, got, 1<<32-1000)
			if !bytes.Equal(got, want[:n]) {
				t.Fatalf("%d bytes: encrypt differs at byte %d", n, firstDifference(got, want))
			}
			c.Decrypt(got, got, 1<<32-1000)
			if !bytes.Equal(got, plain[:n]) {
				t.Fatalf("%d bytes: decrypt differs at byte %d", n, firstDifference(got, plain))
			}
		}
	})
}

func firstDifference(a, b []byte) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	return -1
}
