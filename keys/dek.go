package keys

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"

	"vmcryptfs/layout"
)

// dekSize is the size of a DEK in bytes: XTS-AES-256 takes two AES keys.
const dekSize = 64

// DEK is one file's 512-bit XTS-AES-256 key in locked memory. Safe for concurrent
// use until Wipe.
type DEK struct{ secret *Secret }

// NewDEK makes a random DEK whose halves differ.
func NewDEK() (*DEK, error) {
	secret, err := NewSecret(dekSize)
	if err != nil {
		return nil, fmt.Errorf("new DEK: %w", err)
	}
	d := &DEK{secret: secret}
	for {
		rand.Read(secret.Bytes())
		if d.halvesDiffer() {
			return d, nil
		}
	}
}

// Bytes are the 64 bytes of the key, in locked memory, until Wipe.
func (d *DEK) Bytes() []byte { return d.secret.Bytes() }

// String shows nothing of the key.
func (d *DEK) String() string { return "DEK" }

// GoString is String, so %#v shows no key material either.
func (d *DEK) GoString() string { return d.String() }

// Seal sets the slot MAC of h.
func (d *DEK) Seal(h *layout.Header) { h.MAC = d.slotMAC(h) }

// Verify checks the slot MAC of h in constant time: ErrTampered.
func (d *DEK) Verify(h *layout.Header) error {
	if mac := d.slotMAC(h); !hmac.Equal(mac[:], h.MAC[:]) {
		return fmt.Errorf("slot MAC of file %s: %w", h.FileID, ErrTampered)
	}
	return nil
}

// Wipe forgets the key; idempotent.
func (d *DEK) Wipe() {
	if d != nil {
		d.secret.Wipe()
	}
}

// check is the test of an unwrapped DEK before any use. XTS with equal halves is no cipher to
// rely on (SP 800-38E, FIPS 140 IG C.I), whoever wrote the DEK.
func (d *DEK) check(h *layout.Header) error {
	if !d.halvesDiffer() {
		return fmt.Errorf("the halves of the DEK are equal: %w", ErrTampered)
	}
	return d.Verify(h)
}

func (d *DEK) halvesDiffer() bool {
	b := d.secret.live()
	return subtle.ConstantTimeCompare(b[:dekSize/2], b[dekSize/2:]) == 0
}

// slotMAC is HMAC-SHA-256 of the header under a key derived from the DEK. The DEK is one block of
// SHA-256, so crypto/hkdf makes no copy of the DEK.
func (d *DEK) slotMAC(h *layout.Header) [32]byte {
	key, err := hkdf.Key(sha256.New, d.secret.live(), nil, slotLabel, 32)
	if err != nil {
		panic("keys: derive key: " + err.Error()) // only for lengths unused here
	}
	defer clear(key)
	return hmacSum(key, h.AuthenticatedBytes())
}

// SealRecord sets the MAC of r, a record of a move whose carrier has this DEK and the file id
// r.Carrier.
func (d *DEK) SealRecord(r *layout.MoveRecord) { r.MAC = d.recordMAC(r) }

// VerifyRecord checks the MAC of r in constant time: ErrTampered.
func (d *DEK) VerifyRecord(r *layout.MoveRecord) error {
	if mac := d.recordMAC(r); !hmac.Equal(mac[:], r.MAC[:]) {
		return fmt.Errorf("record of move %s: %w", r.Move, ErrTampered)
	}
	return nil
}

// recordMAC is HMAC-SHA-256 of the record under a key derived from the DEK and the file id.
func (d *DEK) recordMAC(r *layout.MoveRecord) [32]byte {
	key, err := hkdf.Key(sha256.New, d.secret.live(), r.Carrier[:], recordLabel, 32)
	if err != nil {
		panic("keys: derive key: " + err.Error()) // only for lengths unused here
	}
	defer clear(key)
	return hmacSum(key, r.AuthenticatedBytes())
}

// hmacSum is HMAC-SHA-256 of message under a derived key.
func hmacSum(key, message []byte) (mac [32]byte) {
	m := hmac.New(sha256.New, key)
	m.Write(message)
	m.Sum(mac[:0])
	return mac
}
