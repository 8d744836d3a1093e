package move

import (
	"errors"
	"fmt"

	"vmcryptfs/fs/cryptfile"
	"vmcryptfs/layout"
)

// errCutOff reports a change that must wait until an earlier shrink is complete.
var errCutOff = errors.New("an earlier shrink of the moving file was refused by BACKING, and comes first")

// Truncate sets the size; added bytes read as zeros.
func (p *Pair) Truncate(n int64) error {
	if _, err := extent(0, n); err != nil {
		return err
	}
	if err := p.settle(); err != nil {
		return err
	}
	h, err := p.lockTail(n)
	if err != nil {
		return err
	}
	defer p.locks.Release(h)
	if err := p.mayChange(layout.MaxLogical); err != nil {
		return err
	}
	w := p.watermark.Load()
	if w == layout.AllInSource {
		return p.s.Truncate(n)
	}
	if err := p.d.Truncate(n); err != nil || n >= w {
		return err // the size may be between: mayChange completes
	}
	return p.completeShrink()
}

// mayChange is called before every change, which may make the file as great as end. An earlier
// change that left two answers on disk, or a size below W, is completed first. The caller has a
// hold of the range of the change, and of everything from the end of the file on if end is past it.
func (p *Pair) mayChange(end int64) error {
	if p.froze.Load() {
		if err := p.thaw(); err != nil {
			return err
		}
	}
	size, err := p.Size()
	if err != nil || end <= size || !p.isCutOff(size) {
		return err
	}
	if err := p.completeShrink(); err != nil {
		return fmt.Errorf("%w: %w", errCutOff, err)
	}
	return nil
}

// isCutOff reports whether the file, of that size, has been cut below W.
func (p *Pair) isCutOff(size int64) bool {
	w := p.watermark.Load()
	return w != layout.AllInSource && w > floor(size)
}

// completeShrink makes W the end of the file, rounded down, after D was cut below W. The caller has
// an exclusive hold of everything from there on.
func (p *Pair) completeShrink() error {
	n, err := p.Size()
	if err != nil {
		return err
	}
	if err := p.carryOver(n); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.shortened(floor(n)); err != nil {
		return fmt.Errorf("complete a shrink to %d: %w", n, err)
	}
	return nil
}

// shortened makes at, the end of the file rounded down, W. mu is held.
func (p *Pair) shortened(at int64) error {
	refused := p.d.stored.refused.Load()
	if err := p.d.Sync(cryptfile.Data); err != nil {
		return err
	}
	if p.d.stored.refused.Load() != refused {
		return errRefusedBeside
	}
	p.zone.Store(min(p.zone.Load(), at)) // both hold what is left from at on: the disk may have either W
	if p.journal.unsynced && p.journal.last.Watermark < at {
		return errUnsettled
	}
	if err := p.journal.write(at); err != nil {
		return err
	}
	p.watermark.Store(at)
	p.differing.remove(at, layout.MaxLogical)
	p.differs.Store(len(p.differing) > 0)
	return p.s.Truncate(at)
}

// errUnsettled reports a record that is to be made durable first.
var errUnsettled = errors.New("a record of the move was refused meanwhile; try again")

// carryOver writes the part of a unit before the new end n to D, unless the zone surely has it.
func (p *Pair) carryOver(n int64) error {
	p.dropDoubtful()
	at := floor(n)
	if at == n || at >= p.zone.Load() {
		return nil
	}
	var unit [layout.UnitSize]byte
	part := unit[:n-at]
	if err := readWhole(p.s, part, at); err != nil {
		return err
	}
	_, err := p.d.WriteAt(part, at, cryptfile.Volatile)
	return err
}

// settle makes a record durable that the disk may not hold, and W what the record says. No hold and
// not mu is had.
func (p *Pair) settle() error {
	for {
		if err := p.repair(); err != nil {
			return err
		}
		p.mu.Lock()
		if len(p.differing) == 0 {
			err := p.settleRecord()
			p.mu.Unlock()
			return err
		}
		p.mu.Unlock()
	}
}

// settleRecord is settle with nothing differing. mu is held.
func (p *Pair) settleRecord() error {
	if !p.journal.unsynced {
		return nil
	}
	if err := p.journal.again(); err != nil {
		return err
	}
	w := p.journal.last.Watermark
	p.watermark.Store(w)
	if p.journal.last.Back || w == layout.AllInSource || p.zone.Load() == layout.AllInSource {
		p.zone.Store(w)
	}
	return nil
}

// thaw tries again what BACKING refused.
func (p *Pair) thaw() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.frozen == nil {
		return nil
	}
	if err := p.frozen(); err != nil {
		return fmt.Errorf("the file does not change until BACKING has stored where its content lies: %w", err)
	}
	p.frozen = nil
	p.froze.Store(false)
	return nil
}

// freeze refuses changes until again succeeds. mu is held.
func (p *Pair) freeze(again func() error) {
	p.frozen = again
	p.froze.Store(true)
}
