package cryptoblk

import (
	"crypto/subtle"
	"errors"
	"fmt"
	"unsafe"
)

const (
	// KeySize is the size of a key in bytes: 32 to encrypt data, then 32 to encrypt tweaks.
	KeySize = 64

	// UnitSize is the size of a data unit in bytes.
	UnitSize = 512

	// ScheduleSize is how many bytes of memory New wants for the key schedules.
	ScheduleSize = 768

	// scheduleAlign is the alignment of schedule memory in bytes: a cache line.
	scheduleAlign = 64

	blockSize = 16
)

var (
	// ErrKeySize is New's error for a key whose length is not KeySize bytes.
	ErrKeySize = errors.New("XTS key is not 64 bytes long")

	// ErrEqualHalves is New's error for a key of two equal halves. Such a key would encrypt
	// tweaks under the data's key: IEEE 1619's proof does not cover equal halves, and FIPS 140
	// (implementation guidance C.I) forbids them.
	ErrEqualHalves = errors.New("the two halves of the XTS key are equal")
)

// tweak is the number of a data unit, 128 bits as in IEEE 1619. Files use the lower 64; the
// standards' vectors use all.
type tweak struct{ lo, hi uint64 }

// next returns the tweak of the next data unit. A run past 2^64 - 1 carries into the upper half,
// as an integer does.
func (t tweak) next() tweak {
	t.lo++
	if t.lo == 0 {
		t.hi++
	}
	return t
}

// Cipher is the cipher of one file. A Cipher is immutable, and so safe for concurrent use, until
// Wipe.
type Cipher struct {
	engine   engine // nil once wiped
	schedule []byte // memory for engine's keys; ScheduleSize bytes
}

// engine is one implementation of XTS with a key. Both methods take len(src) > 0, a multiple of
// 16, and len(dst) == len(src).
type engine interface {
	encrypt(dst, src []byte, first tweak)
	decrypt(dst, src []byte, first tweak)
}

// New returns the cipher for key: KeySize bytes (else ErrKeySize) in two different halves (else
// ErrEqualHalves). New writes the key schedules to schedule, memory of the caller: ScheduleSize
// bytes, 64-byte aligned, and locked if the key is to stay out of swap. A nil schedule means heap
// memory. The caller keeps schedule until after Wipe, and may wipe key at once. An implementation
// demanded by VMCRYPTFS_CIPHER and missing here is an error too.
//
// The portable implementation cannot use schedule: crypto/aes keeps its own schedules on the
// heap.
func New(key, schedule []byte) (*Cipher, error) {
	impl, err := chosen()
	if err != nil {
		return nil, err
	}
	return newCipher(impl, key, schedule)
}

func newCipher(impl implementation, key, schedule []byte) (*Cipher, error) {
	if len(key) != KeySize {
		return nil, fmt.Errorf("cryptoblk: %w: %d bytes", ErrKeySize, len(key))
	}
	if subtle.ConstantTimeCompare(key[:KeySize/2], key[KeySize/2:]) == 1 {
		return nil, fmt.Errorf("cryptoblk: %w", ErrEqualHalves)
	}
	if schedule == nil {
		schedule = heapSchedule()
	}
	if len(schedule) != ScheduleSize {
		return nil, fmt.Errorf("cryptoblk: key schedule memory of %d bytes, not %d", len(schedule), ScheduleSize)
	}
	if uintptr(unsafe.Pointer(&schedule[0]))%scheduleAlign != 0 {
		return nil, fmt.Errorf("cryptoblk: key schedule memory is not aligned to %d bytes", scheduleAlign)
	}
	e, err := impl.build((*[KeySize]byte)(key), (*[ScheduleSize]byte)(schedule))
	if err != nil {
		return nil, err
	}
	return &Cipher{engine: e, schedule: schedule}, nil
}

// heapSchedule returns ScheduleSize aligned bytes of the heap.
func heapSchedule() []byte {
	b := make([]byte, ScheduleSize+scheduleAlign-1)
	skip := -uintptr(unsafe.Pointer(&b[0])) % scheduleAlign
	return b[skip : skip+ScheduleSize : skip+ScheduleSize]
}

// Encrypt encrypts src to dst. len(src) is a multiple of 16; src holds data units of 512 bytes
// numbered from unit, and the last unit may be shorter. dst is at least as long as src. dst and
// src begin at the same byte or do not overlap. Encrypt panics if the caller breaks these rules,
// or after Wipe.
func (c *Cipher) Encrypt(dst, src []byte, unit uint64) {
	if dst = c.check(dst, src); len(dst) > 0 {
		c.engine.encrypt(dst, src, tweak{lo: unit})
	}
}

// Decrypt is the inverse of Encrypt, under the same rules, but for holes: a whole
// unit of 512 zero bytes stays zero. (Encrypt makes such a unit with probability
// 2^-4096.) A shorter last unit is never a hole.
func (c *Cipher) Decrypt(dst, src []byte, unit uint64) {
	if dst = c.check(dst, src); len(dst) > 0 {
		c.engine.decrypt(dst, src, tweak{lo: unit})
	}
}

// check panics over a bug of the caller, and returns dst cut to len(src).
func (c *Cipher) check(dst, src []byte) []byte {
	switch {
	case c.engine == nil:
		panic("cryptoblk: use of a wiped cipher")
	case len(src)%blockSize != 0:
		panic("cryptoblk: input is not a multiple of 16 bytes")
	case len(dst) < len(src):
		panic("cryptoblk: output is shorter than input")
	}
	dst = dst[:len(src)]
	if inexactOverlap(dst, src) {
		panic("cryptoblk: input and output overlap, but not exactly")
	}
	return dst
}

// inexactOverlap reports whether x and y, of one length, share memory without
// being the same.
func inexactOverlap(x, y []byte) bool {
	if len(x) == 0 {
		return false
	}
	px, py := uintptr(unsafe.Pointer(&x[0])), uintptr(unsafe.Pointer(&y[0]))
	n := uintptr(len(x))
	return px != py && px < py+n && py < px+n
}

// Wipe zeroes the schedule memory and makes the cipher unusable; idempotent. No Encrypt or
// Decrypt may be under way. The portable implementation's schedules lie inside crypto/aes; Wipe
// can only leave them to the garbage collector.
func (c *Cipher) Wipe() {
	c.engine = nil
	clear(c.schedule)
	c.schedule = nil
}
