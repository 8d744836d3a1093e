package keys

import (
	"crypto/hkdf"
	"crypto/sha256"
	"encoding"
	"encoding/binary"
	"hash"
)

// HMAC (RFC 2104) and HKDF (RFC 5869) of a KEK. crypto/hmac and crypto/hkdf would keep
// it on the heap: the one as its pads, the other in the buffer of a hash whose message
// ends with it, inside a block. Here a KEK is hashed in whole blocks of locked memory,
// which crypto/sha256 does not copy.

// The bytes that HMAC adds to its key.
const (
	innerPad = 0x36
	outerPad = 0x5c
)

// pad gives every byte of b another by xor.
func pad(b []byte, with byte) {
	for i := range b {
		b[i] ^= with
	}
}

// padded is how a KEK lies in memory: followed by what SHA-256 (FIPS 180-4 §5.1.1) adds
// to a message that one block and the KEK are all of.
func padded(b []byte) {
	b[KEKSize] = 0x80
	binary.BigEndian.PutUint64(b[sha256.BlockSize-8:], 8*(sha256.BlockSize+KEKSize))
}

// hmac is HMAC-SHA-256 of message under the KEK; it fails when no memory can be locked.
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

// derive is HKDF-SHA-256 of the KEK, 32 bytes; the caller wipes them. salt is at most
// one block of SHA-256.
func (k *KEK) derive(salt []byte, label string) ([]byte, error) {
	var block [sha256.BlockSize]byte
	copy(block[:], salt)
	pad(block[:], innerPad)
	inner, outer := sha256.New(), sha256.New()
	inner.Write(block[:])
	inner.Write(k.secret.live()) // and its padding
	pad(block[:], innerPad^outerPad)
	outer.Write(block[:])
	outer.Write(state(inner))
	prk := outer.Sum(nil)
	defer clear(prk)
	return hkdf.Expand(sha256.New, prk, label, 32)
}

// state is the chaining value of a SHA-256 that was given whole blocks: the digest, when
// the last one ended with padding.
func state(h hash.Hash) []byte {
	b, err := h.(encoding.BinaryMarshaler).MarshalBinary()
	if err != nil {
		panic("keys: state of SHA-256: " + err.Error()) // the standard library gives none
	}
	const magic = 4
	return b[magic : magic+sha256.Size]
}
