package move

import (
	"sync/atomic"

	"golang.org/x/sys/unix"

	"vmcryptfs/fs/cryptfile"
	"vmcryptfs/keys"
	"vmcryptfs/layout"
)

// content is one of the two files as its readers and writers see it; the methods are those of
// content.Content.
type content interface {
	ReadAt(p []byte, off int64) (int, error)
	PeekAt(p []byte, off int64) (int, error)
	WriteAt(p []byte, off int64, d cryptfile.Durability) (int, error)
	Truncate(size int64) error
	Sync(d cryptfile.Durability) error
	Punch(off, n int64) error
	Zero(off, n int64, keepSize bool) error
	Allocate(off, n int64, keepSize bool) error
	Seek(off int64, whence int) (int64, error)
	Size() (int64, error)
	Close() error
}

// half is S or D.
type half struct {
	content
	stored *guard
	dek    *keys.DEK // nil: in clear; owned by content
}

// newHalf takes over b and dek, also on error. dek is nil for a file in clear.
func newHalf(b cryptfile.Backing, dek *keys.DEK) (*half, error) {
	g := &guard{Backing: b}
	if dek == nil {
		return &half{content: plain{g}, stored: g}, nil
	}
	f, err := cryptfile.Open(g, dek)
	if err != nil {
		return nil, err
	}
	return &half{content: encrypted{f}, stored: g, dek: dek}, nil
}

// encrypted is an encrypted half.
type encrypted struct{ *cryptfile.File }

func (e encrypted) Size() (int64, error) { return e.File.Size(), nil }

// plain is a half in clear.
type plain struct{ *guard }

func (c plain) Punch(off, n int64) error {
	return c.Fallocate(unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n)
}

func (c plain) Zero(off, n int64, keepSize bool) error {
	return c.Fallocate(unix.FALLOC_FL_ZERO_RANGE|keep(keepSize), off, n)
}

func (c plain) Allocate(off, n int64, keepSize bool) error {
	return c.Fallocate(keep(keepSize), off, n)
}

func (c plain) PeekAt(p []byte, off int64) (int, error) { return cryptfile.PeekAt(c.Backing, p, off) }

func keep(size bool) uint32 {
	if size {
		return unix.FALLOC_FL_KEEP_SIZE
	}
	return 0
}

// guard is a Backing that counts the syncs and durable writes refused by BACKING, whoever asked
// for them: after a refusal, pages that were not stored are clean, and no later sync stores them.
type guard struct {
	cryptfile.Backing
	refused atomic.Uint64
}

// Sync is the Backing's.
func (g *guard) Sync(d cryptfile.Durability) error { return g.noted(g.Backing.Sync(d)) }

// WriteAt is the Backing's.
func (g *guard) WriteAt(p []byte, off int64, d cryptfile.Durability) (int, error) {
	n, err := g.Backing.WriteAt(p, off, d)
	if d != cryptfile.Volatile {
		g.noted(err)
	}
	return n, err
}

func (g *guard) noted(err error) error {
	if err != nil {
		g.refused.Add(1)
	}
	return err
}

// PeekAt is the Backing's.
func (g *guard) PeekAt(p []byte, off int64) (int, error) { return cryptfile.PeekAt(g.Backing, p, off) }

// Refresh is the Backing's, if it has one.
func (g *guard) Refresh(off, n int64) error {
	if r, ok := g.Backing.(cryptfile.Refresher); ok {
		return r.Refresh(off, n)
	}
	return nil
}

// beginWriteback has BACKING begin to store a range, so that a later sync has little left to do. A
// refusal is met by that sync.
func (h *half) beginWriteback(off, n int64) {
	if h.dek != nil {
		off += layout.DataOffset
	}
	if w, ok := h.stored.Backing.(interface{ BeginWriteback(off, n int64) }); ok {
		w.BeginWriteback(off, n)
	}
}
