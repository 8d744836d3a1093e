package keys

import (
	"crypto/hkdf"
	"crypto/sha256"
	"encoding"
	"encoding/binary"
	"hash"
)

// HMAC (RFC 2104) and HKDF (RFC 5869) of a KEK. crypto/hmac and crypto/hkdf would keep the KEK on
// the heap: crypto/hmac as pads, crypto/hkdf in the buffer of a hash whose message ends with the
// KEK, inside a block. Here a KEK is hashed in whole blocks of locked memory; crypto/sha256 makes
// no copy of whole blocks.

// The bytes combined with the key by HMAC.
const (
	innerPad = 0x36
	outerPad = 0x5c
)

// pad replaces every byte of b by the byte xor with.
func pad(b []byte, with byte) {
	for i := range b {
		b[i] ^= with
	}
}

// padded completes a KEK in memory: after the KEK comes the padding that SHA-256 (FIPS 180-4
// §5.1.1) adds to a message of one block and the KEK.
func padded(b []byte) {
	b[KEKSize] = 0x80
	binary.BigEndian.PutUint64(b[sha256.BlockSize-8:], 8*(sha256.BlockSize+KEKSize))
}

// hmac returns HMAC-SHA-256 of message under the KEK. The error: no memory can be locked.
func (k *KEK) hmac(message []byte) ([sha256.Size]byte, error) {
	var sum [sha256.Size]byte
	scratch, err := NewSecret(sha256.BlockSize)
	if err != nil {
		return sum, err
	}
	defer scratch.Wipe()
	block := scratch.Bytes()
	copy(block, k.material())
	pad(block, innerPad)
	inner, outer := sha256.New(), sha256.New()
	inner.Write(block)
	inner.Write(message)
	pad(block, innerPad^outerPad)
	outer.Write(block)
	outer.Write(inner.Sum(nil))
	outer.Sum(sum[:0])
	return sum, nil
}

// derive returns 32 bytes of HKDF-SHA-256 of the KEK; the caller wipes the bytes. salt is at most
// one block of SHA-256.
func (k *KEK) derive(salt []byte, label string) ([]byte, error) {
	var block [sha256.BlockSize]byte
	copy(block[:], salt)
	pad(block[:], innerPad)
	inner, outer := sha256.New(), sha256.New()
	inner.Write(block[:])
	inner.Write(k.secret.live()) // with padding
	pad(block[:], innerPad^outerPad)
	outer.Write(block[:])
	outer.Write(state(inner))
	prk := outer.Sum(nil)
	defer clear(prk)
	return hkdf.Expand(sha256.New, prk, label, 32)
}

// state returns the chaining value of a SHA-256 over whole blocks: the digest, when the last
// block ended with padding.
func state(h hash.Hash) []byte {
	b, err := h.(encoding.BinaryMarshaler).MarshalBinary()
	if err != nil {
		panic("keys: state of SHA-256: " + err.Error()) // the standard library gives none
	}
	const magic = 4
	return b[magic : magic+sha256.Size]
}
