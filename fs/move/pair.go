package move

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"vmcryptfs/fs/cryptfile"
	"vmcryptfs/fs/rangelock"
	"vmcryptfs/layout"
)

// Pair is the content of a file that moves. Safe for concurrent use until Close.
//
// Lock order: a hold of locks, then mu, then the locks of the halves. Nobody waits for a hold while
// having mu, and nobody has a hold over a sync of the mover (a shrink and the way back excepted).
//
// Invariants, with n the size, W watermark and Z zone:
//   - Z ≤ W, and W ≤ n rounded down to a unit, except in a shrink that BACKING cut off.
//   - In [Z, W) S and D hold the same, except for the units in differing.
//   - S ends at or above each W that the carrier's disk may hold; D is durable from there on.
type Pair struct {
	id   layout.FileID
	kind layout.MoveKind
	s, d *half

	locks rangelock.Lock
	// watermark is W, or layout.AllInSource. W goes down in Step and in a shrink, and up in Back.
	// A holder of a range may see the W from before: the range is then in the zone.
	watermark atomic.Int64
	// zone is Z, the lower end of what both files hold; W where there is no zone. Z goes down under
	// an exclusive hold of what is added, and up, to W, with mu held.
	zone atomic.Int64

	mu      sync.Mutex
	journal journal
	// differing are the units of the zone that one file refused while a record was not known to be
	// on disk. They are copied again before the record counts, and before a sync.
	differing spans
	differs   atomic.Bool // there are any
	// frozen, if not nil, must succeed before the file changes; guarded by mu. BACKING refused the
	// sync after which the disk holds the one file's content or the other's.
	frozen func() error
	froze  atomic.Bool // frozen is not nil
	// copied is the number of D's refusals before the zone was begun: if there were more since, what
	// was copied may be in the page cache alone. Guarded by mu.
	copied uint64
	// settled is the number of D's refusals before the last good sync of D: if there were more
	// since, zeros read from D may be in the page cache alone.
	settled atomic.Uint64

	gone   atomic.Bool // Abandon was called
	bounce sync.Pool   // of *[bounceSize]byte
	sizes  sizes
}

// sizes are how much is done at once, in bytes.
type sizes struct {
	zone  int64 // data copied between two records; two zones are the most that a move takes of BACKING
	chunk int64 // copied under one hold
	hole  int64 // length of a hole that is passed under one hold
	back  int64 // copied back under one hold, which lasts over two syncs
}

var usualSizes = sizes{zone: 64 << 20, chunk: 1 << 20, hole: 1 << 30, back: 4 << 20}

// bounceSize bounds what is written to both files at once, in bytes.
const bounceSize = 64 << 10

func newPair(s, d *half, carrier *half, r layout.MoveRecord, slot int) *Pair {
	p := &Pair{id: r.Move, kind: r.Kind, s: s, d: d, sizes: usualSizes}
	p.journal = journal{carrier: carrier.stored, dek: carrier.dek, last: r, known: slot, knownW: r.Watermark}
	p.watermark.Store(r.Watermark)
	p.zone.Store(r.Watermark)
	p.settled.Store(^uint64(0)) // nothing is known of what D's disk holds
	p.bounce.New = func() any { return new([bounceSize]byte) }
	return p
}

// ID is the id of the move.
func (p *Pair) ID() layout.FileID { return p.id }

// Kind is the kind of the move.
func (p *Pair) Kind() layout.MoveKind { return p.kind }

// Watermark is W in bytes, or layout.AllInSource.
func (p *Pair) Watermark() int64 { return p.watermark.Load() }

// Returning reports whether the goal is S.
func (p *Pair) Returning() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.journal.last.Back
}

// Size is the size in bytes: D has the end of the file.
func (p *Pair) Size() (int64, error) { return p.last().Size() }

// last is the half with the end of the file.
func (p *Pair) last() *half {
	if p.watermark.Load() == layout.AllInSource {
		return p.s
	}
	return p.d
}

// Close waits for requests under way and closes both files.
func (p *Pair) Close() error {
	h := p.locks.Acquire(0, rangelock.NoUnit, false)
	defer p.locks.Release(h)
	return errors.Join(p.s.Close(), p.d.Close())
}

// lock waits for the units of [off, end).
func (p *Pair) lock(off, end int64, shared bool) *rangelock.Hold {
	return p.locks.Acquire(off/layout.UnitSize, ceil(end)/layout.UnitSize, shared)
}

// lockTail waits for all units from that of off, or of the end of the file, on.
func (p *Pair) lockTail(off int64) (*rangelock.Hold, error) {
	for {
		size, err := p.Size()
		if err != nil {
			return nil, err
		}
		from := min(off, size) / layout.UnitSize
		h := p.locks.Acquire(from, rangelock.NoUnit, false)
		if now, err := p.Size(); err == nil && from <= now/layout.UnitSize {
			return h, nil
		}
		p.locks.Release(h) // the file shrank meanwhile
	}
}

// lockChange waits for the units of [off, end), and for the end of the file if it will move.
func (p *Pair) lockChange(off, end int64) (*rangelock.Hold, error) {
	if size, err := p.Size(); err != nil {
		return nil, err
	} else if end <= size {
		h := p.lock(off, end, false)
		if size, err := p.Size(); err == nil && end <= size {
			return h, nil
		}
		p.locks.Release(h)
	}
	return p.lockTail(off)
}

// part is a piece of a range that lies in the same files.
type part struct {
	end      int64
	inS, inD bool
}

// partAt returns the part of [off, end) that begins at off. The caller has a hold of the range.
func (p *Pair) partAt(off, end int64) part {
	w := p.watermark.Load()
	if w == layout.AllInSource {
		return part{end, true, false}
	}
	switch z := min(p.zone.Load(), w); {
	case off < z:
		return part{min(end, z), true, false}
	case off < w:
		return part{min(end, w), true, true}
	default:
		return part{end, false, true}
	}
}

// onlyLast is a part, up to end, in the half with the end of the file.
func (p *Pair) onlyLast(end int64) part {
	inS := p.watermark.Load() == layout.AllInSource
	return part{end, inS, !inS}
}

// giveUp ends the zone below every watermark that the disk may hold: what D holds there counts for
// nothing. mu is held.
func (p *Pair) giveUp() {
	if low := p.journal.low(); low != layout.AllInSource {
		p.zone.Store(max(p.zone.Load(), min(low, p.watermark.Load())))
	}
}

// differ notes that one of the two files refused a change of [off, end), a part of the zone. S
// counts there. inD reports whether D must have the change too, since the disk may hold a record
// below it: then the bytes are copied again before that record counts. The caller has an exclusive
// hold of the range.
func (p *Pair) differ(off, end int64) (inD bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.giveUp()
	from := max(floor(off), p.zone.Load())
	if from >= end {
		return false
	}
	p.differing.add(from, ceil(end))
	p.differs.Store(true)
	return true
}

// doubtful reports whether what reads as zeros in D may not be on disk.
func (p *Pair) doubtful() bool { return p.settled.Load() != p.d.stored.refused.Load() }

// extent checks a range of n bytes at off: EINVAL or EFBIG.
func extent(off, n int64) (end int64, err error) {
	switch {
	case off < 0 || n < 0:
		return 0, unix.EINVAL
	case n > layout.MaxLogical || off > layout.MaxLogical-n:
		return 0, unix.EFBIG
	}
	return off + n, nil
}

func floor(n int64) int64 { return n - n%layout.UnitSize }

func ceil(n int64) int64 { return floor(n + layout.UnitSize - 1) }

// spans are ranges of bytes, few, in no order.
type spans [][2]int64

func (s *spans) add(from, to int64) {
	s.remove(from, to)
	*s = append(*s, [2]int64{from, to})
}

// within returns a span of s in [from, to), an empty one if there is none.
func (s spans) within(from, to int64) (int64, int64) {
	for _, r := range s {
		if lo, hi := max(r[0], from), min(r[1], to); lo < hi {
			return lo, hi
		}
	}
	return 0, 0
}

func (s *spans) remove(from, to int64) {
	var left spans
	for _, r := range *s {
		for _, rest := range [][2]int64{{r[0], min(r[1], from)}, {max(r[0], to), r[1]}} {
			if rest[0] < rest[1] {
				left = append(left, rest)
			}
		}
	}
	*s = left
}

// Sync makes all answered changes durable, in both files.
func (p *Pair) Sync(d cryptfile.Durability) error {
	if err := p.repair(); err != nil {
		return fmt.Errorf("sync: %w", err)
	}
	if p.watermark.Load() == layout.AllInSource {
		return p.s.Sync(d)
	}
	return errors.Join(p.s.Sync(d), p.d.Sync(d))
}

// repair copies the differing units from S to D. No hold and not mu is had.
func (p *Pair) repair() error {
	for {
		p.mu.Lock()
		if len(p.differing) == 0 {
			p.mu.Unlock()
			return nil
		}
		span := p.differing[0]
		p.mu.Unlock()
		if err := p.copyAgain(span[0], min(span[1], span[0]+bounceSize)); err != nil {
			return err
		}
	}
}

// copyAgain copies [from, to), at most bounceSize bytes, from S to D, where both files hold them.
func (p *Pair) copyAgain(from, to int64) error {
	h := p.lock(from, to, false)
	defer p.locks.Release(h)
	return p.copyHeld(from, to)
}

// copyHeld is copyAgain with an exclusive hold of the range.
func (p *Pair) copyHeld(from, to int64) error {
	size, err := p.Size() // what was cut off does not come back
	if err != nil {
		return err
	}
	buf := p.borrow()
	defer p.bounce.Put(buf)
	if end := min(to, size, p.watermark.Load()); from < end {
		b := buf[:end-from]
		if err := readWhole(p.s, b, from); err != nil {
			return err
		}
		if _, err := p.d.WriteAt(b, from, cryptfile.Volatile); err != nil {
			return err
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.differing.remove(from, to)
	p.differs.Store(len(p.differing) > 0)
	return nil
}

// evenOut copies the differing units of [off, end) again before a change of a part of them: a unit
// is old or new in each file. The caller has an exclusive hold of the range.
func (p *Pair) evenOut(off, end int64) error {
	for off = floor(off); p.differs.Load(); {
		p.mu.Lock()
		from, to := p.differing.within(off, ceil(end))
		p.mu.Unlock()
		if from == to {
			return nil
		}
		if err := p.copyHeld(from, min(to, from+bounceSize)); err != nil {
			return err
		}
	}
	return nil
}

func (p *Pair) borrow() *[bounceSize]byte { return p.bounce.Get().(*[bounceSize]byte) }

// readWhole fills b, which lies inside the file.
func readWhole(c content, b []byte, off int64) error {
	n, err := c.PeekAt(b, off)
	if err == nil && n < len(b) {
		err = fmt.Errorf("%w: it ends at %d, before %d", layout.ErrDamaged, off+int64(n), off+int64(len(b)))
	}
	return err
}
