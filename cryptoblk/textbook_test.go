package cryptoblk

import (
	"bytes"
	"crypto/aes"
	"math"
	"math/big"
	"testing"
)

// textbook is XTS as written in IEEE Std 1619-2007 (section 5.3), byte by byte and with whole
// integers for tweaks. golang.org/x/crypto/xts has sector numbers of 64 bits, so larger tweaks
// need textbook.
func textbook(t testing.TB, key, src []byte, first tweak, decrypt bool) []byte {
	t.Helper()
	data, err := aes.NewCipher(key[:32])
	if err != nil {
		t.Fatal(err)
	}
	tweaks, err := aes.NewCipher(key[32:])
	if err != nil {
		t.Fatal(err)
	}
	number := new(big.Int).SetUint64(first.hi)
	number.Lsh(number, 64).Add(number, new(big.Int).SetUint64(first.lo))
	dst := bytes.Clone(src)
	var mask [16]byte
	for i := 0; i < len(dst); i += blockSize {
		if i%UnitSize == 0 {
			number.FillBytes(mask[:]) // big-endian
			for a, b := 0, 15; a < b; a, b = a+1, b-1 {
				mask[a], mask[b] = mask[b], mask[a]
			}
			tweaks.Encrypt(mask[:], mask[:])
			number.Add(number, big.NewInt(1))
		}
		block := dst[i : i+blockSize]
		for j := range block {
			block[j] ^= mask[j]
		}
		if decrypt {
			data.Decrypt(block, block)
		} else {
			data.Encrypt(block, block)
		}
		for j := range block {
			block[j] ^= mask[j]
		}
		double(&mask)
	}
	return dst
}

// double is the multiplication by α of section 5.2.
func double(mask *[16]byte) {
	carry := byte(0)
	for j := range mask {
		mask[j], carry = mask[j]<<1|carry, mask[j]>>7
	}
	if carry == 1 {
		mask[0] ^= 0x87
	}
}

// TestCarry runs over the end of the lower half of the unit number, at each place in a run, and
// over the beginning.
func TestCarry(t *testing.T) {
	t.Parallel()
	const n = 40 // more than two batches of tweaks of any kernel
	plain := random(11, n*UnitSize+3*blockSize)
	everywhere(t, func(t *testing.T, impl implementation) {
		c := mustCipher(t, impl, testKey)
		got := make([]byte, len(plain))
		for back := range uint64(n + 2) {
			for _, hi := range []uint64{0, 1, math.MaxUint32, math.MaxUint64 - 1} {
				first := tweak{lo: -back, hi: hi}
				want := textbook(t, testKey, plain, first, false)
				c.engine.encrypt(got, plain, first)
				if !bytes.Equal(got, want) {
					t.Fatalf("from (%d, 2^64-%d): encrypt differs at byte %d", hi, back, firstDifference(got, want))
				}
				c.engine.decrypt(got, want, first)
				if !bytes.Equal(got, plain) {
					t.Fatalf("from (%d, 2^64-%d): decrypt differs at byte %d", hi, back, firstDifference(got, plain))
				}
			}
		}
	})
}

// FuzzTextbook holds every implementation against textbook: any key, unit, length
// and place in memory, and holes in any pattern.
func FuzzTextbook(f *testing.F) {
	for _, unit := range units {
		f.Add(uint64(1), unit, uint64(0), uint16(33), uint8(0), uint8(0), uint64(0))
		f.Add(unit, unit, unit, uint16(1100), uint8(5), uint8(61), uint64(0b0110_1000_0000_0000_0000_0111_0001))
	}
	f.Add(uint64(2), uint64(math.MaxUint64-17), uint64(7), uint16(4095), uint8(63), uint8(1), uint64(0xfffffffffffffff0))
	f.Fuzz(func(t *testing.T, seed, lo, hi uint64, blocks uint16, srcAlign, dstAlign uint8, holes uint64) {
		key := random(seed, KeySize)
		n := (1 + int(blocks%4096)) * blockSize
		first := tweak{lo, hi}
		src := aligned(n, int(srcAlign%64))
		copy(src, random(seed+1, n))
		dst := aligned(n, int(dstAlign%64))
		sealed := textbook(t, key, src, first, false)
		plain := bytes.Clone(src)
		for i := range n / UnitSize {
			if holes>>(i%64)&1 == 1 {
				clear(plain[i*UnitSize:][:UnitSize])
				clear(sealed[i*UnitSize:][:UnitSize])
			}
		}
		want := textbook(t, key, plain, first, false)
		for _, impl := range implementations() {
			c := mustCipher(t, impl, key)
			copy(src, plain)
			c.engine.encrypt(dst, src, first)
			if !bytes.Equal(dst, want) {
				t.Errorf("%s: encrypt differs at byte %d", impl.name, firstDifference(dst, want))
			}
			if !bytes.Equal(src, plain) {
				t.Errorf("%s: encrypt altered its input", impl.name)
			}
			c.engine.encrypt(src, src, first)
			if !bytes.Equal(src, want) {
				t.Errorf("%s: encrypt in place differs at byte %d", impl.name, firstDifference(src, want))
			}
			copy(src, sealed)
			c.engine.decrypt(dst, src, first)
			if !bytes.Equal(dst, plain) {
				t.Errorf("%s: decrypt differs at byte %d", impl.name, firstDifference(dst, plain))
			}
			if !bytes.Equal(src, sealed) {
				t.Errorf("%s: decrypt altered its input", impl.name)
			}
			c.engine.decrypt(src, src, first)
			if !bytes.Equal(src, plain) {
				t.Errorf("%s: decrypt in place differs at byte %d", impl.name, firstDifference(src, plain))
			}
		}
	})
}
