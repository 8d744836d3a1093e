package keys

import (
	"vmcryptfs/layout"
)

// KEK is a 256-bit key-encryption key that a KMS keeps, in locked memory here.
// Safe for concurrent use until Wipe.
type KEK struct {
	Provider string
	ID       string // KMIP Unique Identifier
	secret   *Secret
}

// NewKEK copies material, 32 bytes (else ErrKeyLength), to locked memory.
func NewKEK(provider, id string, material []byte) (*KEK, error) { panic("keys: not built yet") }

// CheckValue is the KEK's key check value (design §3).
func (k *KEK) CheckValue() [16]byte { panic("keys: not built yet") }

// Wipe forgets the key; idempotent.
func (k *KEK) Wipe() { panic("keys: not built yet") }

// Wrap fills locker i of h with dek under k and a fresh nonce. Everything that the
// additional data covers must be set in h; the slot MAC is set by DEK.Seal after
// all lockers.
func (k *KEK) Wrap(h *layout.Header, i int, dek *DEK) error { panic("keys: not built yet") }

// Unwrap opens locker i of h and checks the slot MAC with what it finds: ErrWrongKey
// when the check value says that k is another key, else ErrTampered.
func (k *KEK) Unwrap(h *layout.Header, i int) (*DEK, error) { panic("keys: not built yet") }

// DEK is one file's 512-bit XTS-AES-256 key in locked memory.
type DEK struct{ secret *Secret }

// NewDEK makes a random DEK whose halves differ.
func NewDEK() (*DEK, error) { panic("keys: not built yet") }

// Bytes are the 64 bytes of the key, in locked memory, until Wipe.
func (d *DEK) Bytes() []byte { panic("keys: not built yet") }

// Seal sets the slot MAC of h.
func (d *DEK) Seal(h *layout.Header) { panic("keys: not built yet") }

// Verify checks the slot MAC of h in constant time: ErrTampered.
func (d *DEK) Verify(h *layout.Header) error { panic("keys: not built yet") }

// Wipe forgets the key; idempotent.
func (d *DEK) Wipe() { panic("keys: not built yet") }

// SealSettings is the settings' seal: the MAC of body under k (design §5).
func (k *KEK) SealSettings(id layout.FileID, body []byte) [32]byte { panic("keys: not built yet") }

// VerifySettings checks s in constant time: under k, mac; or, when k is not the
// current KEK, mac_previous. ErrSeal otherwise.
func (k *KEK) VerifySettings(s *layout.Sealed) error { panic("keys: not built yet") }
