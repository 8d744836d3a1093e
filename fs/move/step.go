package move

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"vmcryptfs/fs/cryptfile"
	"vmcryptfs/layout"
)

// blockSize is the granule of zeros that are not copied, in bytes.
const blockSize = 4 << 10

// Pace is called between two chunks with the bytes copied; it may wait, to keep to a rate, and its
// error ends the step.
type Pace func(ctx context.Context, copied int64) error

// errGivenUp reports a zone whose copy counts for nothing.
var errGivenUp = errors.New("BACKING refused a change in the part that was just copied; the part is copied again")

// Step takes the move one zone further towards D: done reports that W is 0. With an error the file
// serves on, and Step may be called again. One goroutine at a time calls Step and the other methods
// of a mover.
func (p *Pair) Step(ctx context.Context, pace Pace) (done bool, err error) {
	if err := p.ready(); err != nil {
		return false, err
	}
	if p.watermark.Load() == 0 {
		return true, nil
	}
	stop := p.copyZone(ctx, pace)
	if err := p.commit(); err != nil {
		return false, errors.Join(stop, err)
	}
	return p.watermark.Load() == 0, stop
}

// ready completes what BACKING refused before, and cuts S off at W.
func (p *Pair) ready() error {
	if err := p.present(); err != nil {
		return err
	}
	if err := p.thaw(); err != nil {
		return err
	}
	if err := p.settle(); err != nil {
		return err
	}
	if err := p.endShrink(); err != nil {
		return err
	}
	p.dropDoubtful()
	return p.cut()
}

// dropDoubtful gives up a zone whose copy may be in the page cache alone.
func (p *Pair) dropDoubtful() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.copied != p.d.stored.refused.Load() {
		p.giveUp()
	}
}

func (p *Pair) endShrink() error {
	h, err := p.lockTail(layout.MaxLogical)
	if err != nil {
		return err
	}
	defer p.locks.Release(h)
	return p.mayChange(layout.MaxLogical)
}

// copyZone copies from S to D below Z, until a zone is full or nothing is left in S. What was
// copied before an error stays.
func (p *Pair) copyZone(ctx context.Context, pace Pace) error {
	buf := make([]byte, p.sizes.chunk)
	for copied := int64(0); copied < p.sizes.zone && p.zone.Load() > 0; {
		n, err := p.copyDown(buf)
		copied += n
		if err == nil {
			err = pace(ctx, n)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// copyDown moves Z down by a chunk or a long hole, and returns the bytes copied.
func (p *Pair) copyDown(buf []byte) (int64, error) {
	z := p.zone.Load()
	if from := max(0, z-p.sizes.hole); p.isEmpty(from, z) {
		passed, err := p.passHole(from, z)
		if passed || err != nil {
			return 0, err
		}
	}
	from := (z - 1) / p.sizes.chunk * p.sizes.chunk
	h := p.lock(from, z, false)
	refused := p.d.stored.refused.Load()
	err := p.notCutOff()
	if err == nil {
		err = p.copyPart(buf, from, z)
	}
	if err == nil {
		err = p.lower(z, from, refused)
	}
	p.locks.Release(h)
	if err != nil {
		return 0, fmt.Errorf("copy %d bytes at %d: %w", z-from, from, err)
	}
	p.d.beginWriteback(from, z-from)
	return z - from, nil
}

// notCutOff is errCutOff for a file that ends below W: nothing is copied past its end. The caller
// has a hold of what is to be copied.
func (p *Pair) notCutOff() error {
	size, err := p.Size()
	if err == nil && p.isCutOff(size) {
		err = errCutOff
	}
	return err
}

// passHole makes from Z if neither file stores anything from there on.
func (p *Pair) passHole(from, z int64) (bool, error) {
	h := p.lock(from, z, false)
	defer p.locks.Release(h)
	if !p.isEmpty(from, z) {
		return false, nil
	}
	return true, p.lower(z, from, p.d.stored.refused.Load())
}

// lower makes from Z, which was z. refused is the number of D's refusals before the copy. The caller
// has an exclusive hold of [from, z).
func (p *Pair) lower(z, from int64, refused uint64) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if z == p.watermark.Load() {
		p.copied = refused
	}
	if p.zone.Load() != z || p.copied != p.d.stored.refused.Load() {
		p.giveUp()
		return errGivenUp
	}
	p.zone.Store(from)
	return nil
}

// isEmpty reports whether both files store nothing in [from, to).
func (p *Pair) isEmpty(from, to int64) bool { return isHole(p.s, from, to) && p.emptyInD(from, to) }

// copyPart copies [from, to), at most a chunk, from S to D, with an exclusive hold.
func (p *Pair) copyPart(buf []byte, from, to int64) error {
	empty := p.emptyInD(from, to)
	for off := from; off < to; {
		data, end := nextData(p.s, off, to)
		if off < data && !empty {
			if err := blank(p.d, off, data); err != nil {
				return err
			}
		}
		if data < end {
			b := buf[:end-data]
			if err := readWhole(p.s, b, data); err != nil {
				return err
			}
			if err := writeRuns(p.d, b, data, empty); err != nil {
				return err
			}
		}
		off = end
	}
	return nil
}

// emptyInD reports whether D surely stores nothing in [from, to).
func (p *Pair) emptyInD(from, to int64) bool { return !p.doubtful() && isHole(p.d, from, to) }

// isHole reports whether a file stores nothing in [from, to); a doubt is none.
func isHole(c content, from, to int64) bool {
	data, err := c.Seek(from, unix.SEEK_DATA)
	return errors.Is(err, unix.ENXIO) || err == nil && data >= to
}

// nextData returns the first extent of data in [off, to), in whole units; [to, to) if there is none.
func nextData(c content, off, to int64) (data, end int64) {
	data, err := c.Seek(off, unix.SEEK_DATA)
	switch {
	case errors.Is(err, unix.ENXIO) || err == nil && data >= to:
		return to, to
	case err != nil:
		return off, to // BACKING cannot tell
	}
	data = max(off, floor(data))
	end, err = c.Seek(data, unix.SEEK_HOLE)
	if end = ceil(end); err != nil || end > to || end <= data {
		end = to
	}
	return data, end
}

// writeRuns writes b at off. Blocks of zeros get reserved space, as they had.
func writeRuns(c content, b []byte, off int64, empty bool) error {
	for from := 0; from < len(b); {
		to := min(from+blockSize, len(b))
		zero := layout.AllZero(b[from:to])
		for to < len(b) && layout.AllZero(b[to:min(to+blockSize, len(b))]) == zero {
			to = min(to+blockSize, len(b))
		}
		var err error
		if zero {
			err = reserve(c, off+int64(from), int64(to-from), empty)
		} else {
			_, err = c.WriteAt(b[from:to], off+int64(from), cryptfile.Volatile)
		}
		if err != nil {
			return err
		}
		from = to
	}
	return nil
}

// reserve makes [off, off+n) zeros with space allocated.
func reserve(c content, off, n int64, empty bool) error {
	var err error
	if empty {
		if err = c.Allocate(off, n, true); unsupported(err) {
			return nil
		}
	} else if err = c.Zero(off, n, true); unsupported(err) {
		return blank(c, off, off+n)
	}
	return err
}

// blank makes [from, to) a hole, or zeros where BACKING makes no hole.
func blank(c content, from, to int64) error {
	err := c.Punch(from, to-from)
	if !unsupported(err) {
		return err
	}
	zeros := make([]byte, min(bounceSize, to-from))
	for off := from; off < to; off += int64(len(zeros)) {
		clear(zeros)
		if _, err := c.WriteAt(zeros[:min(int64(len(zeros)), to-off)], off, cryptfile.Volatile); err != nil {
			return err
		}
	}
	return nil
}

func unsupported(err error) bool {
	return errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS)
}

// commit makes the zone D's: D is synced, W is recorded and goes down to Z, and S is cut off there.
func (p *Pair) commit() error {
	z, w := p.zone.Load(), p.watermark.Load()
	if z == w {
		return nil
	}
	err := p.d.Sync(cryptfile.Data)
	if err == nil {
		err = p.record(z)
	} else {
		p.mu.Lock()
		p.giveUp()
		p.mu.Unlock()
	}
	if err != nil {
		return err
	}
	return p.cut()
}

// record records that W is z, after a good sync of D.
func (p *Pair) record(z int64) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.d.stored.refused.Load() != p.copied {
		p.giveUp()
		return errRefusedBeside
	}
	p.settled.Store(p.copied)
	if p.zone.Load() != z || z > p.watermark.Load() {
		return errGivenUp
	}
	if z == p.watermark.Load() { // a shrink was faster
		return nil
	}
	if err := p.journal.write(z); err != nil {
		return err
	}
	p.watermark.Store(z)
	return nil
}

// cut cuts S off at W, once the requests that began before W went down are done.
func (p *Pair) cut() error {
	w := p.watermark.Load()
	if w == layout.AllInSource {
		return nil
	}
	size, err := p.s.Size()
	if err != nil || size <= w {
		return err
	}
	p.locks.Release(p.lock(w, size, false))
	p.mu.Lock()
	defer p.mu.Unlock()
	if w = p.watermark.Load(); size <= w {
		return nil
	}
	if err := p.s.Truncate(w); err != nil {
		return fmt.Errorf("cut off what was moved, from %d on: %w", w, err)
	}
	return nil
}
