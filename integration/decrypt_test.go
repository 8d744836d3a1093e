package integration

// An independent reader of encrypted files: written from docs/on-disk-format.md alone, with the
// standard library's HKDF and GCM and golang.org/x/crypto/xts. Nothing of layout, cryptoblk or
// keys is used, so a mistake there cannot hide itself.

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"golang.org/x/crypto/xts"
)

const (
	magic     = "\x89VMCRYPT"
	slotSize  = 4096
	slotB     = 512 << 10
	dataStart = 1 << 20
	unitSize  = 512

	// Offsets in a slot.
	atVersion    = 8
	atCipher     = 10
	atFlags      = 12
	atGeneration = 16
	atFileID     = 24
	atDataOffset = 40
	atReserved1  = 44
	atLockers    = 64
	atMAC        = 3904
	atMark       = 3936
	atReserved2  = 3952
	atSHA        = 4064

	// Offsets in a locker.
	lockerSize    = 480
	inWrap        = 0
	inProviderLen = 1
	inKeyIDLen    = 2
	inKCV         = 4
	inNonce       = 20
	inWrapped     = 32
	inProvider    = 112
	inKeyID       = 176
	inRest        = 432
)

var errNoLocker = errors.New("no locker of a known key")

// wellFormed is the rule for a slot that may count: magic and SHA-256, nothing else.
func wellFormed(slot []byte) bool {
	sum := sha256.Sum256(slot[:atSHA])
	return string(slot[:len(magic)]) == magic && bytes.Equal(sum[:], slot[atSHA:])
}

// countingSlot reads both slots and returns the slot with the higher generation.
func countingSlot(f io.ReaderAt) ([]byte, error) {
	var best []byte
	for _, at := range []int64{0, slotB} {
		slot := make([]byte, slotSize)
		if _, err := f.ReadAt(slot, at); err != nil {
			return nil, fmt.Errorf("read slot at %d: %w", at, err)
		}
		if wellFormed(slot) && (best == nil || generation(slot) > generation(best)) {
			best = slot
		}
	}
	if best == nil {
		return nil, errors.New("no well-formed slot")
	}
	return best, checkFixed(best)
}

func generation(slot []byte) uint64 { return binary.LittleEndian.Uint64(slot[atGeneration:]) }

// checkFixed checks the fields with one right value in version 1.
func checkFixed(slot []byte) error {
	switch le := binary.LittleEndian; {
	case le.Uint16(slot[atVersion:]) != 1, le.Uint16(slot[atCipher:]) != 1, le.Uint32(slot[atFlags:]) != 0:
		return fmt.Errorf("version, cipher or flags: %x", slot[atVersion:atGeneration])
	case generation(slot) == 0:
		return errors.New("generation 0")
	case le.Uint32(slot[atDataOffset:]) != dataStart:
		return fmt.Errorf("data offset %d", le.Uint32(slot[atDataOffset:]))
	case !zero(slot[atReserved1:atLockers]), !zero(slot[atReserved2:atSHA]):
		return errors.New("reserved bytes are not zero")
	case slot[atFileID+6]>>4 != 4 || slot[atFileID+8]>>6 != 2:
		return fmt.Errorf("file id %x is no UUID v4", slot[atFileID:atFileID+16])
	}
	return nil
}

func zero(b []byte) bool { return len(bytes.Trim(b, "\x00")) == 0 }

// unlock opens the first locker whose key is in keks (by key identifier), and proves the slot
// with the DEK found.
func unlock(slot []byte, keks map[string][]byte) (dek, nonce []byte, err error) {
	for i := range 8 {
		l := slot[atLockers+i*lockerSize:][:lockerSize]
		kek := keks[keyID(l)]
		if l[inWrap] != 1 || kek == nil || !bytes.Equal(l[inKCV:inNonce], checkValue(kek)) {
			continue
		}
		nonce = l[inNonce:inWrapped]
		gcm, err := wrapCipher(kek, slot[atFileID:atDataOffset], nonce)
		if err != nil {
			return nil, nil, err
		}
		dek, err = gcm.Open(nil, nonce, l[inWrapped:inProvider], wrapAAD(slot, l))
		if err != nil {
			return nil, nil, fmt.Errorf("locker %d: %w", i, err)
		}
		if !hmac.Equal(slotMAC(dek, slot), slot[atMAC:atMark]) {
			return nil, nil, errors.New("slot MAC is wrong")
		}
		return dek, nonce, nil
	}
	return nil, nil, errNoLocker
}

func checkValue(kek []byte) []byte {
	return hmacSHA256(kek, []byte("vmcryptfs kek check v1"))[:16]
}

func wrapCipher(kek, fileID, nonce []byte) (cipher.AEAD, error) {
	salt := append(bytes.Clone(fileID), nonce...)
	key, err := hkdf.Key(sha256.New, kek, salt, "vmcryptfs wrap v1", 32)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

func wrapAAD(slot, locker []byte) []byte {
	return slabs(slot[:atGeneration], slot[atFileID:atLockers], locker[:inNonce], locker[inProvider:])
}

// slotMAC covers the mark of a moving file, too: without one the MAC is as it was before there were
// moves.
func slotMAC(dek, slot []byte) []byte {
	key, err := hkdf.Key(sha256.New, dek, nil, "vmcryptfs slot v1", 32)
	if err != nil {
		panic(err) // 32 bytes are always to be had
	}
	if marked(slot) {
		return hmacSHA256(key, slabs(slot[:atMAC], slot[atMark:atSHA]))
	}
	return hmacSHA256(key, slot[:atMAC])
}

// marked reports whether the slot is a moving file's: the file holds half of the content.
func marked(slot []byte) bool { return !zero(slot[atMark:atReserved2]) }

func hmacSHA256(key, message []byte) []byte {
	h := hmac.New(sha256.New, key)
	h.Write(message)
	return h.Sum(nil)
}

func slabs(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

// plainFile is the plaintext of an encrypted backing file.
type plainFile struct {
	f      io.ReaderAt
	size   int64 // logical
	id     string
	nonce  string
	dek    string
	cipher *xts.Cipher
}

// openPlain reads the header of a whole backing file of stored bytes.
func openPlain(f io.ReaderAt, stored int64, keks map[string][]byte) (*plainFile, error) {
	slot, err := countingSlot(f)
	if err != nil {
		return nil, err
	}
	if marked(slot) {
		return nil, fmt.Errorf("half of a moving file: move %x", slot[atMark:atReserved2])
	}
	return openSlot(f, stored, slot, keks)
}

// openSlot opens a backing file whose slot counts.
func openSlot(f io.ReaderAt, stored int64, slot []byte, keks map[string][]byte) (*plainFile, error) {
	dek, nonce, err := unlock(slot, keks)
	if err != nil {
		return nil, err
	}
	c, err := xts.NewCipher(aes.NewCipher, dek)
	if err != nil {
		return nil, err
	}
	p := &plainFile{f: f, id: string(slot[atFileID:atDataOffset]), nonce: string(nonce), dek: string(dek), cipher: c}
	switch s := stored - dataStart; {
	case s%unitSize == 0:
		p.size = s
	case s > unitSize:
		p.size = s - unitSize
	}
	return p, nil
}

// ReadAt returns plaintext; off is a multiple of the unit size.
func (p *plainFile) ReadAt(b []byte, off int64) (int, error) {
	if off%unitSize != 0 {
		return 0, fmt.Errorf("offset %d inside a unit", off)
	}
	n := int(min(int64(len(b)), p.size-off))
	if n <= 0 {
		return 0, io.EOF
	}
	whole := make([]byte, (n+unitSize-1)/unitSize*unitSize)
	if _, err := p.f.ReadAt(whole, dataStart+off); err != nil {
		return 0, err
	}
	for at := 0; at < len(whole); at += unitSize {
		unit := whole[at:][:unitSize]
		if !zero(unit) {
			p.cipher.Decrypt(unit, unit, uint64(off+int64(at))/unitSize)
		}
	}
	copy(b, whole[:n])
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

// all is the whole plaintext.
func (p *plainFile) all() ([]byte, error) {
	b := make([]byte, p.size)
	if _, err := p.ReadAt(b, 0); err != nil && (p.size > 0 || !errors.Is(err, io.EOF)) {
		return nil, err
	}
	return b, nil
}

// keyIDs are the key identifiers of a slot's KMIP lockers.
func keyIDs(slot []byte) []string {
	var ids []string
	for i := range 8 {
		l := slot[atLockers+i*lockerSize:][:lockerSize]
		if l[inWrap] == 1 {
			ids = append(ids, keyID(l))
		}
	}
	return ids
}

// keyID is a locker's key identifier.
func keyID(locker []byte) string {
	return string(locker[inKeyID:][:binary.LittleEndian.Uint16(locker[inKeyIDLen:])])
}
