// Package cryptoblk is XTS-AES-256 (IEEE 1619) over runs of 512-byte data units.
package cryptoblk

// KeySize is the size of a key in bytes: 32 for data, then 32 for the tweak.
const KeySize = 64

// ScheduleSize is how many bytes of memory New wants for the key schedules.
const ScheduleSize = 1024

// Cipher is one file's cipher; safe for concurrent use until Wipe.
type Cipher struct{}

// New expands key (KeySize bytes; its halves must differ) into schedule, memory of
// the caller's of ScheduleSize bytes, 64-byte aligned (locked, if the key is), or on
// the heap when schedule is nil. key may be wiped afterwards.
func New(key, schedule []byte) (*Cipher, error) { panic("cryptoblk: not built yet") }

// Encrypt encrypts src to dst: len(src) is a multiple of 16; data units of 512
// bytes numbered from unit, the last one may be shorter. dst and src are the same
// memory or do not overlap. No allocation.
func (c *Cipher) Encrypt(dst, src []byte, unit uint64) { panic("cryptoblk: not built yet") }

// Decrypt is the inverse of Encrypt, but a whole unit of 512 zero bytes is a hole
// and stays zero.
func (c *Cipher) Decrypt(dst, src []byte, unit uint64) { panic("cryptoblk: not built yet") }

// Wipe forgets the key schedules as far as the implementation can; idempotent.
func (c *Cipher) Wipe() { panic("cryptoblk: not built yet") }

// Implementation names the implementation that New uses: "portable", ….
func Implementation() string { return "portable" }
