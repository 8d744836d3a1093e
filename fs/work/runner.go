package work

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// turnWait bounds the wait for the work before: a work whose peer has left still ends its
// step.
const turnWait = 2 * time.Second

// Status is the work under way, whose progress is a P.
type Status[P any] struct {
	Since time.Time
	By    Peer
	Last  P // the last progress; zero: none yet
}

// Runner runs the works of one datastore. The zero value is ready; a Runner is not copied.
type Runner struct {
	mu  sync.Mutex // guards now and now.last; a leaf, never held over a work
	now *turn      // nil: nothing is under way
}

// turn is the place of what is under way. Fields but last are immutable.
type turn struct {
	kind  string
	since time.Time
	by    Peer
	// stop ends the work for a cause; nil: what has the turn is no work and ends by itself.
	stop  context.CancelCauseFunc
	ended chan struct{} // closed when the turn is over
	last  any           // the last progress, of the work's own type
}

// Do runs f as a work of kind for by, when no other work is under way. The context of f
// ends with ctx and by Stop; tell takes each progress for Now, and costs no I/O. Do returns
// after f. Where f was not begun, the error is a BusyError or ctx's.
func Do[P any](ctx context.Context, r *Runner, kind string, by Peer, f func(ctx context.Context, tell func(P))) error {
	inner, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var none P
	t := &turn{kind: kind, since: time.Now(), by: by, stop: stop, ended: make(chan struct{}), last: none}
	if err := r.await(ctx, t); err != nil {
		return err
	}
	defer r.end(t)
	f(inner, func(progress P) {
		r.mu.Lock()
		defer r.mu.Unlock()
		t.last = progress
	})
	return nil
}

// Alone runs f while no work is under way, and no work begins before f returns. A work
// under way is not waited for: the error is a BusyError, and f was not run. A work that is
// refused meanwhile is told of kind. Stop and Now do not see f.
func (r *Runner) Alone(kind string, f func() error) error {
	t := &turn{kind: kind, ended: make(chan struct{})}
	if before := r.take(t); before != nil {
		return &BusyError{before.kind}
	}
	defer r.end(t)
	return f()
}

// await gives t its turn.
func (r *Runner) await(ctx context.Context, t *turn) error {
	var late <-chan time.Time // nil: nobody was in the way yet
	for {
		before := r.take(t)
		if before == nil {
			return nil
		}
		if late == nil {
			timer := time.NewTimer(turnWait)
			defer timer.Stop()
			late = timer.C
		}
		select {
		case <-before.ended:
		case <-late:
			return &BusyError{before.kind}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// take gives t its turn if nothing is under way; before is what is.
func (r *Runner) take(t *turn) (before *turn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.now == nil {
		r.now = t
		return nil
	}
	return r.now
}

// end ends the turn of t.
func (r *Runner) end(t *turn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.now = nil
	close(t.ended)
}

// Now gives the work under way if its progress is a P, which is how a caller tells the
// kinds of works apart.
func Now[P any](r *Runner) (s Status[P], ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.now == nil {
		return Status[P]{}, false
	}
	last, ok := r.now.last.(P)
	if !ok {
		return Status[P]{}, false
	}
	return Status[P]{Since: r.now.since, By: r.now.by, Last: last}, true
}

// Stop ends the work under way for cause, and waits for its end. A work that has not ended
// within the time given is an error, and so is the end of ctx; the work ends all the same,
// later. Without a work there is nothing to do.
func (r *Runner) Stop(ctx context.Context, cause error, within time.Duration) error {
	r.mu.Lock()
	t := r.now
	r.mu.Unlock()
	if t == nil || t.stop == nil {
		return nil
	}
	t.stop(&stopError{cause})
	late := time.NewTimer(within)
	defer late.Stop()
	select {
	case <-t.ended:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-late.C:
		return fmt.Errorf("a %s has not ended within %v", t.kind, within)
	}
}

// stopError is the cause of a context that Stop ended.
type stopError struct{ cause error }

func (e *stopError) Error() string { return e.cause.Error() }
func (e *stopError) Unwrap() error { return e.cause }

// Cause gives the cause for which Stop ended the work with ctx, in place of err, which the
// Stop brought about; err itself if err is nil or nobody stopped the work.
func Cause(ctx context.Context, err error) error {
	if stop, ok := errors.AsType[*stopError](context.Cause(ctx)); ok && err != nil {
		return stop.cause
	}
	return err
}
