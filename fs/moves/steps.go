package moves

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"vmcryptfs/fs"
	"vmcryptfs/fs/move"
	"vmcryptfs/keys"
	"vmcryptfs/layout"
)

// isFinal reports whether err says that the move does not begin. What BACKING refuses, for want of
// space or by an error of the medium, is tried again; a move that has begun always is.
func (j *job) isFinal(err error) bool {
	switch {
	case errors.Is(err, errDropped), errors.Is(err, errNotOurs), errors.Is(err, errVanished), errors.Is(err, errTurned):
		return true
	case errors.Is(err, errStopped), errors.Is(err, errMarked), j.isListed():
		return false
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT), errors.Is(err, keys.ErrLocked):
		return false
	}
	return !errors.Is(err, unix.EIO)
}

// errMarked: a begin failed and left the file marked, so its id stays listed.
var errMarked = errors.New("the move has not begun, and its mark is on the file")

// try is run up to a refusal. A Manager that halts waits for the end of try.
func (j *job) try(ctx context.Context, m *Manager) error {
	done, err := j.turn(ctx)
	if err != nil {
		return err
	}
	defer done()
	m.stepping.RLock()
	defer m.stepping.RUnlock()
	if stop, _, _, _ := j.wanted(); stop {
		return errStopped
	}
	at := j.at()
	mover, err := m.config.FS.OpenMover(at)
	if errors.Is(err, unix.ESTALE) {
		return j.lookFor(ctx, m)
	}
	if err != nil {
		return err
	}
	return errors.Join(j.moved(ctx, m, mover), mover.Close())
}

// lookFor finds the file of the job, whose name leads nowhere, by its mark. nil: nothing bears the
// mark any more.
func (j *job) lookFor(ctx context.Context, m *Manager) error {
	found, err := m.config.find(ctx)
	if err != nil {
		return fmt.Errorf("look for the file of the move: %w", err)
	}
	for _, f := range found {
		if f.ID == j.id {
			j.mu.Lock()
			j.path, j.view.Path = f.Path, f.Path
			j.mu.Unlock()
			return errStopped
		}
	}
	if j.isBegun() {
		return nil
	}
	return errVanished
}

func (j *job) moved(ctx context.Context, m *Manager, mover *fs.Mover) error {
	p := mover.Pair()
	if p == nil && j.isBegun() { // its last steps were done as it was opened, or it is another file
		return j.lookFor(ctx, m)
	}
	if p == nil && j.isGivenUp() { // no mark either: the file was opened
		return errDropped
	}
	if p == nil {
		err := mover.Begin(ctx, j.kind, j.id)
		if p = mover.Pair(); p == nil {
			return j.notBegun(ctx, m, err)
		}
	}
	if p.ID() != j.id {
		return errNotOurs
	}
	j.sees(p)
	if err := j.steps(ctx, m, mover); err != nil {
		return err
	}
	turned := p.Watermark() == layout.AllInSource
	if err := mover.End(ctx); err != nil {
		return err
	}
	if turned {
		return errTurned
	}
	return nil
}

// notBegun is why a move did not begin, err. The id of a file that bears its mark all the same stays
// listed, and the begin is tried again.
func (j *job) notBegun(ctx context.Context, m *Manager, err error) error {
	at := j.at()
	if mark, markErr := m.config.markOf(ctx, at); markErr != nil || mark == j.id {
		j.mu.Lock()
		j.marked = true
		j.mu.Unlock()
		return fmt.Errorf("%w: %w", errMarked, errors.Join(err, markErr))
	}
	return err
}

// sees takes up what p is. A move that was on its way back goes on so.
func (j *job) sees(p *move.Pair) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if !j.seen && p.Returning() {
		j.cancel = true
	}
	j.seen, j.begun, j.kind = true, true, p.Kind()
	j.view.Kind = p.Kind().String()
}

// steps takes the pair of mover to where one file has the whole content.
func (j *job) steps(ctx context.Context, m *Manager, mover *fs.Mover) error {
	for {
		stop, _, back, _ := j.wanted()
		if stop {
			return errStopped
		}
		p := mover.Pair()
		if p == nil {
			return fs.ErrNotMoving
		}
		done, err := j.step(ctx, m, p, back)
		j.measure(p)
		if done || err != nil {
			return err
		}
	}
}

// step is one step in the direction wanted.
func (j *job) step(ctx context.Context, m *Manager, p *move.Pair, back bool) (done bool, err error) {
	// All in S is the end of the way back. Before, it is a begin whose record BACKING refused: Turn
	// stores that record again.
	if p.Watermark() == 0 || p.Watermark() == layout.AllInSource && p.Returning() {
		return true, nil
	}
	wanted := back
	pace := func(ctx context.Context, copied int64) error { return j.pace(ctx, copied, wanted) }
	towardsClear := (p.Kind() == layout.MoveDecrypt) != back && p.Kind() != layout.MoveDeep
	if towardsClear && !m.config.allowsClear(j.at()) {
		back = !back
	}
	if err := p.Turn(back); err != nil {
		return false, err
	}
	if !back {
		j.note(Forward, "")
		return p.Step(ctx, pace)
	}
	j.note(Back, "")
	if done, err := p.Back(ctx, pace); !done || err != nil {
		return false, err
	}
	return true, p.Return()
}

// pace keeps the job to the rate of its request. It ends a step when the job is to stop, or to go
// another way than the one that was wanted as the step began.
func (j *job) pace(ctx context.Context, copied int64, back bool) error {
	if j.told != nil {
		j.told(copied)
	}
	stop, _, wanted, change := j.wanted()
	if stop || wanted != back {
		return errStopped
	}
	if err := j.rate.wait(ctx, change, copied); err != nil {
		return err
	}
	if stop, _, wanted, _ = j.wanted(); stop || wanted != back {
		return errStopped
	}
	return nil
}

func (j *job) measure(p *move.Pair) {
	size, err := p.Size()
	if err != nil {
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.view.Size, j.view.Watermark = size, p.Watermark()
}
