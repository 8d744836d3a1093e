package move

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"vmcryptfs/fs/cryptfile"
	"vmcryptfs/fs/rangelock"
	"vmcryptfs/layout"
)

// ReadAt fills p from off; fewer bytes, with a nil error, mean the end of the file.
func (p *Pair) ReadAt(b []byte, off int64) (int, error) { return p.read(b, off, content.ReadAt) }

// PeekAt is ReadAt without a change of access times.
func (p *Pair) PeekAt(b []byte, off int64) (int, error) { return p.read(b, off, content.PeekAt) }

func (p *Pair) read(b []byte, off int64, from func(content, []byte, int64) (int, error)) (int, error) {
	if off < 0 {
		return 0, unix.EINVAL
	}
	h := p.lock(off, off+min(int64(len(b)), layout.MaxLogical-min(off, layout.MaxLogical)), true)
	defer p.locks.Release(h)
	size, err := p.Size()
	if err != nil || off >= size {
		return 0, err
	}
	end := off + min(int64(len(b)), size-off)
	w := p.watermark.Load()
	if w == layout.AllInSource || w > end {
		w = end
	}
	done := 0
	if off < w {
		done, err = from(p.s, b[:w-off], off)
		if err == nil && int64(done) < w-off {
			err = readWhole(p.s, b[:w-off], off) // says where S ends
		}
		if err != nil {
			return done, err
		}
	}
	if off+int64(done) >= end {
		return done, nil
	}
	n, err := from(p.d, b[done:], off+int64(done)) // the whole of b: D reads its last unit in place
	return done + n, err
}

// WriteAt writes b at off, and may leave anything in b.
func (p *Pair) WriteAt(b []byte, off int64, d cryptfile.Durability) (int, error) {
	end, err := extent(off, int64(len(b)))
	if err != nil || len(b) == 0 {
		return 0, err
	}
	h, err := p.lockChange(off, end)
	if err != nil {
		return 0, err
	}
	defer p.locks.Release(h)
	if err := p.mayChange(end); err != nil {
		return 0, err
	}
	if err := p.evenOut(off, end); err != nil {
		return 0, err
	}
	if err := p.refuseMagic(b, off); err != nil {
		return 0, err
	}
	for done := 0; ; {
		at := off + int64(done)
		part := p.partAt(at, end)
		n, err := p.writePart(part, b[done:done+int(part.end-at)], at, d)
		done += n
		if err != nil || done == len(b) {
			return done, err
		}
	}
}

// writePart writes b, all of which lies in the part.
func (p *Pair) writePart(part part, b []byte, off int64, d cryptfile.Durability) (int, error) {
	switch {
	case !part.inD:
		return p.s.WriteAt(b, off, d)
	case !part.inS:
		return p.d.WriteAt(b, off, d)
	}
	copied := p.borrow() // an encrypted half makes noise of what it is given
	defer p.bounce.Put(copied)
	done := 0
	for done < len(b) {
		piece := b[done:min(done+bounceSize, len(b))]
		at := off + int64(done)
		copy(copied[:], piece)
		n, err := p.s.WriteAt(copied[:len(piece)], at, d)
		if err != nil {
			p.differ(at, at+int64(len(piece)))
			return done + n, err
		}
		if n, err = p.d.WriteAt(piece, at, d); err != nil && p.differ(at, at+int64(len(piece))) {
			return done + n, err
		}
		done += len(piece)
	}
	return done, nil
}

// refuseMagic gives EPERM for a write to a file that becomes clear, if the file would begin with the
// magic of an encrypted one. The caller has a hold of the write's range.
func (p *Pair) refuseMagic(b []byte, off int64) error {
	if p.kind != layout.MoveDecrypt || off >= int64(len(layout.Magic)) {
		return nil
	}
	var head [len(layout.Magic)]byte
	if off > 0 || len(b) < len(head) {
		if err := p.peekHead(head[:]); err != nil {
			return err
		}
	}
	copy(head[off:], b)
	if layout.HasMagic(head[:]) {
		return unix.EPERM
	}
	return nil
}

// peekHead reads the first bytes, with zeros past the end. The caller has a hold of the first unit.
func (p *Pair) peekHead(head []byte) error {
	from := p.d
	if w := p.watermark.Load(); w > 0 || w == layout.AllInSource {
		from = p.s
	}
	_, err := from.PeekAt(head, 0)
	return err
}

// Punch makes [off, off+n) a hole; the size stays.
func (p *Pair) Punch(off, n int64) error {
	return p.allocate(off, n, true, func(c content, off, n int64, _ bool) error { return c.Punch(off, n) })
}

// Zero makes [off, off+n) zeros with space allocated; the size grows unless keepSize.
func (p *Pair) Zero(off, n int64, keepSize bool) error {
	return p.allocate(off, n, keepSize, content.Zero)
}

// Allocate reserves space for [off, off+n); the size grows unless keepSize.
func (p *Pair) Allocate(off, n int64, keepSize bool) error {
	return p.allocate(off, n, keepSize, content.Allocate)
}

func (p *Pair) allocate(off, n int64, keepSize bool, do func(c content, off, n int64, keepSize bool) error) error {
	if n == 0 {
		return unix.EINVAL
	}
	end, err := extent(off, n)
	if err != nil {
		return err
	}
	h, err := p.lockAllocate(off, end, keepSize)
	if err != nil {
		return err
	}
	defer p.locks.Release(h)
	grown := end
	if keepSize {
		grown = 0
	}
	if err := p.mayChange(grown); err != nil {
		return err
	}
	if err := p.evenOut(off, end); err != nil {
		return err
	}
	size, err := p.Size()
	if err != nil {
		return err
	}
	for off < end {
		part := p.partAt(off, end)
		if off >= size { // of a file cut off below W, S still has what was there
			part = p.onlyLast(end)
		} else if part.inS {
			part.end = min(part.end, size)
		}
		if err := p.allocatePart(part, off, keepSize, do); err != nil {
			return err
		}
		off = part.end
	}
	return nil
}

func (p *Pair) lockAllocate(off, end int64, keepSize bool) (*rangelock.Hold, error) {
	if keepSize {
		return p.lock(off, end, false), nil
	}
	return p.lockChange(off, end)
}

func (p *Pair) allocatePart(part part, off int64, keepSize bool, do func(c content, off, n int64, keepSize bool) error) error {
	n := part.end - off
	if part.inS {
		inside := keepSize || part.inD || p.watermark.Load() != layout.AllInSource // S grows no more
		if err := do(p.s, off, n, inside); err != nil {
			if part.inD {
				p.differ(off, part.end)
			}
			return err
		}
	}
	if !part.inD {
		return nil
	}
	err := do(p.d, off, n, keepSize || part.inS)
	if err != nil && part.inS && !p.differ(off, part.end) {
		return nil // S alone counts, and has the change
	}
	return err
}

// Seek is lseek(2) with SEEK_DATA or SEEK_HOLE.
func (p *Pair) Seek(off int64, whence int) (int64, error) {
	h := p.locks.Acquire(max(0, off)/layout.UnitSize, rangelock.NoUnit, true)
	defer p.locks.Release(h)
	w := p.watermark.Load()
	if w == layout.AllInSource {
		return p.s.Seek(off, whence)
	}
	if off < 0 || off >= w {
		return p.d.Seek(off, whence)
	}
	at, err := p.s.Seek(off, whence)
	if err == nil && at < w {
		return at, nil
	}
	if err != nil && !errors.Is(err, unix.ENXIO) {
		return 0, err
	}
	if err := p.sourceReaches(w); err != nil {
		return 0, err
	}
	size, err := p.d.Size()
	if err == nil && w >= size { // D has nothing: the end of the file is a hole
		if whence == unix.SEEK_HOLE {
			return size, nil
		}
		return 0, unix.ENXIO
	}
	if err != nil {
		return 0, err
	}
	return p.d.Seek(w, whence)
}

// sourceReaches is layout.ErrDamaged if S ends before W: what is missing there is no hole.
func (p *Pair) sourceReaches(w int64) error {
	size, err := p.s.Size()
	if err == nil && size < w {
		err = fmt.Errorf("%w: the old file ends at %d, before %d", layout.ErrDamaged, size, w)
	}
	return err
}
