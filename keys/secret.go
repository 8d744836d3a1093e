package keys

// Secret is memory for key material: not swappable, left out of core files, zero
// after Wipe. The memory comes from shared locked pages, 64-byte aligned.
type Secret struct{}

// NewSecret gives n (1…4096) zero bytes of locked memory.
func NewSecret(n int) (*Secret, error) { panic("keys: not built yet") }

// Bytes is the memory itself, nil after Wipe. The caller keeps no copy.
func (s *Secret) Bytes() []byte { panic("keys: not built yet") }

// Wipe zeroes and returns the memory; idempotent. Nobody may use Bytes any more.
func (s *Secret) Wipe() { panic("keys: not built yet") }

// HardenProcess keeps this process's memory out of core files and of other
// processes' reach, and out of swap where it may (design §5). Called once by
// programs that hold keys, before the first key.
func HardenProcess() error { panic("keys: not built yet") }
