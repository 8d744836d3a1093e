package keys

import "fmt"

// lockedPages are the locked pages of this process. The process has one arena because the limit
// (RLIMIT_MEMLOCK) counts per process, and because two arenas would each round up to whole
// chunks. Nothing else is shared through lockedPages, and the arena is empty before the first
// secret and after the last.
var lockedPages arena

// Secret is memory for key material: not swappable, left out of core files and of
// forked children, zero after Wipe. The memory comes from shared locked pages,
// 64-byte aligned. Wipe may be called by several goroutines and must not overlap a
// use of Bytes.
type Secret struct {
	b    []byte
	slot slot
}

// NewSecret returns n (1…4096) zero bytes of locked memory. The system may refuse to lock more
// (ENOMEM, EPERM): the error's text names the limit to raise. NewSecret panics when n is out of
// range.
func NewSecret(n int) (*Secret, error) {
	if n < 1 || n > maxSecret {
		panic(fmt.Sprintf("keys: secret of %d bytes", n))
	}
	b, slot, err := lockedPages.alloc(n)
	if err != nil {
		return nil, err
	}
	return &Secret{b: b, slot: slot}, nil
}

// Bytes is the memory itself, nil after Wipe. The caller keeps no copy.
func (s *Secret) Bytes() []byte { return s.b }

// Wipe zeroes and returns the memory; idempotent. Nobody may use Bytes any more.
func (s *Secret) Wipe() {
	if s == nil || s.b == nil {
		return
	}
	s.b = nil
	lockedPages.release(s.slot)
}

// live is Bytes of a secret not yet wiped. A wiped secret panics here, since no later step would
// fail: HKDF of nothing is a key that anyone can compute.
func (s *Secret) live() []byte {
	if s.b == nil {
		panic("keys: secret used after Wipe")
	}
	return s.b
}
