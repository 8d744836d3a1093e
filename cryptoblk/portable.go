package cryptoblk

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/subtle"
	"encoding/binary"
	"fmt"
)

// portable is XTS on crypto/aes alone: the reference for the assembly, and the implementation
// where there is no assembly. crypto/aes takes one block at a time, so the only gain is to keep
// the calls independent of one another: first the masks of a whole unit, then every XOR, then
// every block.
type portable struct {
	data, tweak cipher.Block
}

func newPortable(key *[KeySize]byte, _ *[ScheduleSize]byte) (engine, error) {
	data, err := aes.NewCipher(key[:KeySize/2])
	if err != nil {
		return nil, fmt.Errorf("cryptoblk: expand the data key: %w", err)
	}
	tweak, err := aes.NewCipher(key[KeySize/2:])
	if err != nil {
		return nil, fmt.Errorf("cryptoblk: expand the tweak key: %w", err)
	}
	return &portable{data, tweak}, nil
}

func (p *portable) encrypt(dst, src []byte, t tweak) {
	var masks [UnitSize]byte
	for len(src) > 0 {
		n := min(UnitSize, len(src))
		p.fill(&masks, dst, src, t)
		subtle.XORBytes(dst, src[:n], masks[:n])
		for i := 0; i < n; i += blockSize {
			p.data.Encrypt(dst[i:i+blockSize], dst[i:i+blockSize])
		}
		subtle.XORBytes(dst, dst[:n], masks[:n])
		dst, src, t = dst[n:], src[n:], t.next()
	}
	clear(masks[:])
}

func (p *portable) decrypt(dst, src []byte, t tweak) {
	var masks [UnitSize]byte
	for len(src) > 0 {
		n := min(UnitSize, len(src))
		if n == UnitSize && isZero(src[:UnitSize]) {
			clear(dst[:UnitSize])
			dst, src, t = dst[n:], src[n:], t.next()
			continue
		}
		p.fill(&masks, dst, src, t)
		subtle.XORBytes(dst, src[:n], masks[:n])
		for i := 0; i < n; i += blockSize {
			p.data.Decrypt(dst[i:i+blockSize], dst[i:i+blockSize])
		}
		subtle.XORBytes(dst, dst[:n], masks[:n])
		dst, src, t = dst[n:], src[n:], t.next()
	}
	clear(masks[:])
}

// fill sets masks to the masks of data unit t's blocks: the encrypted tweak, times α for each
// block. The tweak is encrypted in dst's first block: memory passed to an interface's method must
// be on the heap, and no memory of this package may be. src may lie in the same block and is
// restored.
func (p *portable) fill(masks *[UnitSize]byte, dst, src []byte, t tweak) {
	srcLo, srcHi := binary.LittleEndian.Uint64(src), binary.LittleEndian.Uint64(src[8:])
	binary.LittleEndian.PutUint64(dst, t.lo)
	binary.LittleEndian.PutUint64(dst[8:], t.hi)
	p.tweak.Encrypt(dst[:blockSize], dst[:blockSize])
	lo, hi := binary.LittleEndian.Uint64(dst), binary.LittleEndian.Uint64(dst[8:])
	binary.LittleEndian.PutUint64(dst, srcLo)
	binary.LittleEndian.PutUint64(dst[8:], srcHi)

	for i := 0; i < UnitSize; i += blockSize {
		binary.LittleEndian.PutUint64(masks[i:], lo)
		binary.LittleEndian.PutUint64(masks[i+8:], hi)
		lo, hi = timesAlpha(lo, hi)
	}
}

// timesAlpha multiplies an element of GF(2^128) by α = x, modulo
// x^128 + x^7 + x^2 + x + 1 (IEEE 1619, section 5.2), without a branch.
func timesAlpha(lo, hi uint64) (uint64, uint64) {
	carry := -(hi >> 63) & 0x87
	return lo<<1 ^ carry, hi<<1 | lo>>63
}

// isZero reports whether a stored unit is a hole. Data ends the test at the first word, so only
// holes cost a walk.
func isZero(unit []byte) bool {
	for i := 0; i < len(unit); i += 8 {
		if binary.LittleEndian.Uint64(unit[i:]) != 0 {
			return false
		}
	}
	return true
}
