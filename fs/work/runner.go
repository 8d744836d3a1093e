package work

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// turnWait bounds the wait for an earlier work, which may still finish its last step after its
// peer left.
const turnWait = 2 * time.Second

// Status is the state of the work under way, with progress of type P.
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

// turn is the place of the work under way. All fields but last are immutable.
type turn struct {
	kind  string
	since time.Time
	by    Peer
	// stop ends the work for a cause. stop is nil for Alone, which ends by itself.
	stop  context.CancelCauseFunc
	ended chan struct{} // closed when the turn is over
	last  any           // the last progress, of the work's own type
}

// Do runs f as a work of the given kind for the peer by, once no other work is under way. ctx and
// Stop end the context of f. f passes each progress to tell, which keeps the last one for Now and
// does no I/O. Do returns after f. Where f did not begin, the error is a *BusyError or the error
// of ctx.
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

// Alone runs f while no work is under way; no work begins before f returns. Alone waits for no
// work: while one is under way, the error is a *BusyError and f does not run. A work that is
// refused because of f gets a BusyError of the given kind. Stop and Now ignore f.
func (r *Runner) Alone(kind string, f func() error) error {
	t := &turn{kind: kind, ended: make(chan struct{})}
	if before := r.take(t); before != nil {
		return &BusyError{before.kind}
	}
	defer r.end(t)
	return f()
}

// await waits for the turn of t, for at most turnWait.
func (r *Runner) await(ctx context.Context, t *turn) error {
	var late <-chan time.Time // nil: no other turn was in the way yet
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

// take gives t its turn where nothing is under way. Otherwise before is the turn under way.
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

// Now gives the status of the work under way. ok is false without a work and for a work whose
// progress is not a P; so the type P selects the kind of work.
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

// Stop ends the work under way for cause, and waits for the end. Where the work has not ended
// after the duration within, or ctx ends first, Stop returns an error and the work ends later.
// Without a work, Stop returns nil.
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

// stopError is the cause of a context ended by Stop.
type stopError struct{ cause error }

func (e *stopError) Error() string { return e.cause.Error() }
func (e *stopError) Unwrap() error { return e.cause }

// Cause gives the cause with which Stop ended the work of ctx, in place of err. Cause gives err
// itself for a nil err and for a work that Stop did not end.
func Cause(ctx context.Context, err error) error {
	if stop, ok := errors.AsType[*stopError](context.Cause(ctx)); ok && err != nil {
		return stop.cause
	}
	return err
}
