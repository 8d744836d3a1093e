package integration

// The other direction of decrypt_test.go: encrypted files and headers made by hand, right
// ones and every kind of wrong one, to be put into BACKING behind the mount's back.

import (
	"bytes"
	"crypto/aes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"

	"golang.org/x/crypto/xts"
)

// forgery holds the parts of a forged header.
type forgery struct {
	provider   string
	keyID      string
	kek        []byte
	dek        []byte
	fileID     []byte
	generation uint64
	nonce      []byte
}

// newForgery is a right header's content under a KEK.
func newForgery(provider, keyID string, kek []byte) forgery {
	f := forgery{
		provider: provider, keyID: keyID, kek: kek,
		dek: random(64), fileID: random(16), nonce: random(12), generation: 1,
	}
	f.fileID[6] = f.fileID[6]&0x0f | 0x40
	f.fileID[8] = f.fileID[8]&0x3f | 0x80
	return f
}

func random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails (crypto/rand)
	return b
}

// slot is the forgery as a whole, right header slot.
func (f forgery) slot() []byte {
	s := f.unsealed()
	f.wrap(s)
	f.mac(s)
	return resum(s)
}

// unsealed returns the slot without wrapped DEK, MAC and SHA-256: a test changes a field here
// that the wrap must cover.
func (f forgery) unsealed() []byte {
	s := make([]byte, slotSize)
	le := binary.LittleEndian
	copy(s, magic)
	le.PutUint16(s[atVersion:], 1)
	le.PutUint16(s[atCipher:], 1)
	le.PutUint64(s[atGeneration:], f.generation)
	copy(s[atFileID:], f.fileID)
	le.PutUint32(s[atDataOffset:], dataStart)
	l := s[atLockers:][:lockerSize]
	l[inWrap] = 1
	l[inProviderLen] = byte(len(f.provider))
	le.PutUint16(l[inKeyIDLen:], uint16(len(f.keyID)))
	copy(l[inKCV:], checkValue(f.kek))
	copy(l[inNonce:], f.nonce)
	copy(l[inProvider:], f.provider)
	copy(l[inKeyID:], f.keyID)
	return s
}

// wrap puts the DEK into locker 0 of s as s now is.
func (f forgery) wrap(s []byte) {
	l := s[atLockers:][:lockerSize]
	gcm, err := wrapCipher(f.kek, s[atFileID:atDataOffset], f.nonce)
	if err != nil {
		panic(err) // key sizes are right by construction
	}
	copy(l[inWrapped:], gcm.Seal(nil, f.nonce, f.dek, wrapAAD(s, l)))
}

func (f forgery) mac(s []byte) { copy(s[atMAC:], slotMAC(f.dek, s)) }

// file returns a whole backing file with the content plain.
func (f forgery) file(plain []byte) []byte { return image(f.slot(), sealData(f.dek, plain)) }

// resum makes a changed slot well-formed again.
func resum(s []byte) []byte {
	sum := sha256.Sum256(s[:atSHA])
	copy(s[atSHA:], sum[:])
	return s
}

// sealData returns the stored data of plain: whole units, the last one padded with zeros
// encrypted along, and a spill of zeros carrying the length.
func sealData(dek, plain []byte) []byte {
	var data []byte
	for unit := uint64(0); int(unit)*unitSize < len(plain); unit++ {
		whole := make([]byte, unitSize)
		copy(whole, plain[unit*unitSize:])
		data = append(data, sealUnit(dek, whole, unit)...)
	}
	if tail := len(plain) % unitSize; tail != 0 {
		data = append(data, make([]byte, tail)...)
	}
	return data
}

func sealUnit(dek, plain []byte, unit uint64) []byte {
	c, err := xts.NewCipher(aes.NewCipher, dek)
	if err != nil {
		panic(err) // 64 bytes by construction
	}
	out := bytes.Clone(plain)
	c.Encrypt(out, out, unit)
	return out
}

func sha256Hex(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}
