package move

import (
	"context"
	"errors"
	"fmt"

	"vmcryptfs/fs/cryptfile"
	"vmcryptfs/fs/rangelock"
	"vmcryptfs/layout"
)

// Turn makes S the goal if back, else D. The next call is Back or Step.
func (p *Pair) Turn(back bool) error {
	if err := p.present(); err != nil {
		return err
	}
	if err := p.settle(); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.journal.last.Back == back {
		return nil
	}
	p.giveUp()
	p.journal.last.Back = back
	if err := p.journal.write(p.watermark.Load()); err != nil {
		return fmt.Errorf("turn the move: %w", err)
	}
	return nil
}

// Back takes the move, which Turn has turned, one chunk further towards S: done reports that all
// whole units are in S. With an error the file serves on, and Back may be called again.
func (p *Pair) Back(ctx context.Context, pace Pace) (done bool, err error) {
	if err := p.ready(); err != nil {
		return false, err
	}
	n, err := p.backChunk()
	if err != nil {
		return false, err
	}
	if n == 0 {
		return true, nil
	}
	return false, pace(ctx, n)
}

// backChunk copies the units after W from D to S, and returns the bytes; 0: no whole unit is left.
func (p *Pair) backChunk() (int64, error) {
	from := p.watermark.Load()
	h := p.locks.Acquire(from/layout.UnitSize, (from+p.sizes.back)/layout.UnitSize, false)
	defer p.locks.Release(h)
	size, err := p.d.Size()
	to := min(from+p.sizes.back, floor(size))
	if err != nil || p.watermark.Load() != from || to <= from {
		return 0, err
	}
	if err := p.restore(from, to); err != nil {
		p.cutBack(from)
		return 0, fmt.Errorf("copy %d bytes at %d back: %w", to-from, from, err)
	}
	if err := p.raise(from, to); err != nil {
		return 0, err
	}
	_ = p.d.Punch(from, to-from) // the space is wanted back; a refusal leaves what counts for nothing
	return to - from, nil
}

// restore copies [from, to) from D to the end of S, durably.
func (p *Pair) restore(from, to int64) error {
	if err := p.s.Truncate(to); err != nil {
		return err
	}
	buf := make([]byte, p.sizes.chunk)
	for off := from; off < to; {
		data, end := nextData(p.d, off, to)
		end = min(end, data+p.sizes.chunk)
		if data < end {
			b := buf[:end-data]
			if err := readWhole(p.d, b, data); err != nil {
				return err
			}
			if err := writeRuns(p.s, b, data, true); err != nil {
				return err
			}
		}
		off = end
	}
	refused := p.s.stored.refused.Load()
	if err := p.s.Sync(cryptfile.Data); err != nil {
		return err
	}
	if p.s.stored.refused.Load() != refused {
		return errRefusedBeside
	}
	return nil
}

// cutBack takes away what a refused copy left in S: a refusal leaves it to the next call.
func (p *Pair) cutBack(w int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	_ = p.s.Truncate(w)
}

// raise records that W is to. Both files hold [from, to), so until the record is known to be on disk
// requests go to both. The caller has an exclusive hold of the range.
func (p *Pair) raise(from, to int64) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	err := p.journal.write(to)
	p.zone.Store(from)
	p.watermark.Store(to)
	if err == nil {
		p.zone.Store(to)
	}
	return err
}

// Return makes S the whole content, after Back is done. From a refused sync of the last record until
// a good one, the file does not change.
func (p *Pair) Return() error {
	if err := p.present(); err != nil {
		return err
	}
	if err := p.ready(); err != nil {
		return err
	}
	h := p.locks.Acquire(0, rangelock.NoUnit, false)
	defer p.locks.Release(h)
	w := p.watermark.Load()
	if w == layout.AllInSource {
		return nil
	}
	n, err := p.d.Size()
	if err == nil && floor(n) != w {
		err = errors.New("the file grew meanwhile")
	}
	if err == nil {
		err = p.returnTail(w, n)
	}
	if err != nil {
		p.cutBack(w)
		return fmt.Errorf("copy the end of the file back: %w", err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.journal.write(layout.AllInSource); err != nil {
		p.freeze(p.settleRecord)
		return err
	}
	return p.settleAll()
}

// returnTail copies [w, n), a part of a unit, to S, and syncs S whole.
func (p *Pair) returnTail(w, n int64) error {
	if err := p.s.Truncate(n); err != nil {
		return err
	}
	var unit [layout.UnitSize]byte
	if tail := unit[:n-w]; len(tail) > 0 {
		if err := readWhole(p.d, tail, w); err != nil {
			return err
		}
		if _, err := p.s.WriteAt(tail, w, cryptfile.Volatile); err != nil {
			return err
		}
	}
	refused := p.s.stored.refused.Load()
	if err := p.s.Sync(cryptfile.Full); err != nil {
		return err
	}
	if p.s.stored.refused.Load() != refused {
		return errRefusedBeside
	}
	return nil
}

// settleAll makes S the content. mu is held.
func (p *Pair) settleAll() error {
	p.zone.Store(layout.AllInSource)
	p.watermark.Store(layout.AllInSource)
	return nil
}
