package keys

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"

	"vmcryptfs/layout"
)

// KEKSize is the size of a KEK in bytes.
const KEKSize = 32

// Labels of the constructions of design §3 and §5; each derived key is 32 bytes.
const (
	checkLabel    = "vmcryptfs kek check v1"
	wrapLabel     = "vmcryptfs wrap v1"
	slotLabel     = "vmcryptfs slot v1"
	recordLabel   = "vmcryptfs move v1"
	settingsLabel = "vmcryptfs settings v1"
)

// KEK is a 256-bit key-encryption key kept by a KMS, in locked memory here. Safe for concurrent
// use until Wipe.
//
// Keys derived from a KEK for one file, and expanded AES schedules, pass through the Go heap for
// the time of one call, since crypto/hkdf and crypto/aes allocate. Derived keys are wiped, and
// HardenProcess keeps the heap out of swap and core files. The KEK itself never leaves locked
// memory.
type KEK struct {
	Provider string
	ID       string  // KMIP Unique Identifier
	secret   *Secret // see padded
	check    [16]byte
}

// NewKEK copies material, 32 bytes (else ErrKeyLength), to locked memory. The caller
// wipes material.
func NewKEK(provider, id string, material []byte) (*KEK, error) {
	if len(material) != KEKSize {
		return nil, fmt.Errorf("KEK %q of provider %q has %d bits: %w", id, provider, 8*len(material), ErrKeyLength)
	}
	secret, err := NewSecret(sha256.BlockSize)
	if err != nil {
		return nil, fmt.Errorf("KEK %q of provider %q: %w", id, provider, err)
	}
	copy(secret.Bytes(), material)
	padded(secret.Bytes())
	k := &KEK{Provider: provider, ID: id, secret: secret}
	mac, err := k.hmac([]byte(checkLabel))
	if err != nil {
		secret.Wipe()
		return nil, fmt.Errorf("KEK %q of provider %q: %w", id, provider, err)
	}
	copy(k.check[:], mac[:])
	return k, nil
}

// material is the key itself.
func (k *KEK) material() []byte { return k.secret.live()[:KEKSize] }

// CheckValue returns the KEK's key check value (design §3). A check value is no secret.
func (k *KEK) CheckValue() [16]byte { return k.check }

// Wipe forgets the key; idempotent.
func (k *KEK) Wipe() {
	if k != nil {
		k.secret.Wipe()
	}
}

// String names the key without any key material.
func (k *KEK) String() string { return fmt.Sprintf("KEK %q of provider %q", k.ID, k.Provider) }

// GoString is String, so %#v shows no key material either.
func (k *KEK) GoString() string { return k.String() }

// Wrap fills locker i of h with dek under k and a fresh nonce. All fields covered by the
// additional data must be set in h. DEK.Seal sets the slot MAC after all lockers. Wrap fails when
// a locker cannot hold the KEK's names.
func (k *KEK) Wrap(h *layout.Header, i int, dek *DEK) error {
	var nonce [12]byte
	rand.Read(nonce[:]) // never fails: crypto/rand ends the process instead
	return k.wrap(h, i, dek, nonce)
}

func (k *KEK) wrap(h *layout.Header, i int, dek *DEK, nonce [12]byte) error {
	if err := layout.ValidNames(k.Provider, k.ID); err != nil {
		return fmt.Errorf("wrap DEK of file %s under %s: %w", h.FileID, k, err)
	}
	aead, err := k.wrapper(h.FileID, nonce)
	if err != nil {
		return fmt.Errorf("wrap DEK of file %s under %s: %w", h.FileID, k, err)
	}
	h.Lockers[i] = layout.Locker{
		Wrap:     layout.WrapKMIP,
		Provider: k.Provider,
		KeyID:    k.ID,
		KCV:      k.check,
		Nonce:    nonce,
	}
	aead.Seal(h.Lockers[i].Wrapped[:0], nonce[:], dek.secret.live(), h.WrapAAD(i))
	return nil
}

// Unwrap opens locker i of h and checks the slot MAC with the DEK found. The error is ErrWrongKey
// when the check value belongs to another key, else ErrTampered. A locker of another kind gives
// layout.ErrUnsupported.
func (k *KEK) Unwrap(h *layout.Header, i int) (*DEK, error) {
	dek, err := k.unwrap(h, i)
	if err != nil {
		return nil, fmt.Errorf("unwrap DEK of file %s with %s: %w", h.FileID, k, err)
	}
	return dek, nil
}

func (k *KEK) unwrap(h *layout.Header, i int) (*DEK, error) {
	l := &h.Lockers[i]
	if l.Wrap != layout.WrapKMIP {
		return nil, fmt.Errorf("locker %d has wrap %d: %w", i, l.Wrap, layout.ErrUnsupported)
	}
	if subtle.ConstantTimeCompare(l.KCV[:], k.check[:]) != 1 {
		return nil, ErrWrongKey
	}
	aead, err := k.wrapper(h.FileID, l.Nonce)
	if err != nil {
		return nil, err
	}
	secret, err := NewSecret(dekSize)
	if err != nil {
		return nil, err
	}
	dek := &DEK{secret: secret}
	if _, err := aead.Open(secret.Bytes()[:0], l.Nonce[:], l.Wrapped[:], h.WrapAAD(i)); err != nil {
		dek.Wipe()
		return nil, ErrTampered
	}
	if err := dek.check(h); err != nil {
		dek.Wipe()
		return nil, err
	}
	return dek, nil
}

// wrapper is wrap 1: AES-256-GCM under a key for this file and nonce alone. So random nonces of
// 96 bits do not limit how many files one KEK may wrap.
func (k *KEK) wrapper(id layout.FileID, nonce [12]byte) (cipher.AEAD, error) {
	var salt [28]byte
	copy(salt[:16], id[:])
	copy(salt[16:], nonce[:])
	key, err := k.derive(salt[:], wrapLabel)
	if err != nil {
		return nil, err
	}
	defer clear(key)
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}
