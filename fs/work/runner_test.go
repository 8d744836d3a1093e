package work

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// steps and bytes are the progress of two kinds of works.
type (
	steps int
	bytes int
)

var asker = Peer{UID: 1000, PID: 7}

// held is a work under way until its release.
type held struct {
	ctx     context.Context // the work's
	tell    func(steps)
	release func()
	done    chan error // result of Do
}

// hold begins a work of r that lasts until its release.
func hold(t *testing.T, ctx context.Context, r *Runner) *held {
	t.Helper()
	h := &held{done: make(chan error, 1)}
	begun, release := make(chan struct{}), make(chan struct{})
	h.release = func() { close(release) }
	go func() {
		h.done <- Do(ctx, r, "rekey", asker, func(ctx context.Context, tell func(steps)) {
			h.ctx, h.tell = ctx, tell
			close(begun)
			<-release
		})
	}()
	<-begun
	return h
}

// end lets the work end.
func (h *held) end(t *testing.T) {
	t.Helper()
	h.release()
	if err := <-h.done; err != nil {
		t.Error(err)
	}
}

func nothing(context.Context, func(steps)) {}

func TestOneAtATime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var r Runner
		first := hold(t, t.Context(), &r)
		begun := time.Now()
		err := Do(t.Context(), &r, "apply", asker, func(context.Context, func(bytes)) { t.Error("two works at a time") })
		if !errors.Is(err, ErrBusy) || err.Error() != "another rekey of this datastore is under way" {
			t.Errorf("beside another: %v", err)
		}
		if waited := time.Since(begun); waited != turnWait {
			t.Errorf("waited %v, want %v", waited, turnWait)
		}
		first.end(t)
		if err := Do(t.Context(), &r, "rekey", asker, nothing); err != nil {
			t.Errorf("after the first: %v", err)
		}
	})
}

// Of many works waiting for one with a near end, each has a turn.
func TestTurns(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var r Runner
		first := hold(t, t.Context(), &r)
		var inside, done atomic.Int32
		const waiting = 20
		for range waiting {
			go func() {
				err := Do(t.Context(), &r, "rekey", asker, func(context.Context, func(steps)) {
					if inside.Add(1) != 1 {
						t.Error("two works at a time")
					}
					time.Sleep(turnWait / (2 * waiting))
					inside.Add(-1)
				})
				if err != nil {
					t.Error(err)
				}
				done.Add(1)
			}()
		}
		synctest.Wait()
		first.end(t)
		time.Sleep(turnWait)
		synctest.Wait()
		if n := done.Load(); n != waiting {
			t.Errorf("%d of %d works are done", n, waiting)
		}
	})
}

// A peer that leaves while waiting gets no work; the work of a peer that leaves later is ended.
func TestPeerLeaves(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var r Runner
		asking, leave := context.WithCancel(t.Context())
		first := hold(t, asking, &r)
		waiting, give := context.WithCancel(t.Context())
		refused := make(chan error)
		go func() {
			refused <- Do(waiting, &r, "rekey", asker, func(context.Context, func(steps)) { t.Error("begun") })
		}()
		synctest.Wait()
		give()
		if err := <-refused; !errors.Is(err, context.Canceled) {
			t.Errorf("left while waiting: %v", err)
		}
		leave()
		<-first.ctx.Done()
		ended := errors.New("walk ended")
		if err := Cause(first.ctx, ended); err != ended {
			t.Errorf("cause %v, want the work's own error", err)
		}
		first.end(t)
	})
}

func TestNow(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var r Runner
		if s, ok := Now[steps](&r); ok {
			t.Errorf("before any work: %+v", s)
		}
		first := hold(t, t.Context(), &r)
		want := Status[steps]{Since: time.Now(), By: asker}
		time.Sleep(time.Second)
		for want.Last = range steps(3) {
			first.tell(want.Last)
			if s, ok := Now[steps](&r); !ok || s != want {
				t.Errorf("status %+v, %t; want %+v", s, ok, want)
			}
		}
		if s, ok := Now[bytes](&r); ok {
			t.Errorf("a work of another kind: %+v", s)
		}
		first.end(t)
		if s, ok := Now[steps](&r); ok {
			t.Errorf("after the work: %+v", s)
		}
	})
}

func TestStop(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var r Runner
		cause := errors.New("read-only by now")
		if err := r.Stop(t.Context(), cause, time.Minute); err != nil {
			t.Errorf("without a work: %v", err)
		}
		first := hold(t, t.Context(), &r)
		stopped := make(chan error)
		go func() { stopped <- r.Stop(t.Context(), cause, time.Minute) }()
		<-first.ctx.Done()
		synctest.Wait()
		select {
		case err := <-stopped:
			t.Errorf("Stop returned before the work did: %v", err)
		default:
		}
		if err := Cause(first.ctx, first.ctx.Err()); err != cause {
			t.Errorf("the work ended for %v, want %v", err, cause)
		}
		if err := Cause(first.ctx, nil); err != nil {
			t.Errorf("a work that had ended well: %v", err)
		}
		first.end(t)
		if err := <-stopped; err != nil {
			t.Error(err)
		}
		if err := Do(t.Context(), &r, "rekey", asker, func(ctx context.Context, _ func(steps)) {
			if err := ctx.Err(); err != nil {
				t.Errorf("the next work begins stopped: %v", err)
			}
		}); err != nil {
			t.Error(err)
		}
	})
}

// A work that does not end causes an error of Stop, and is stopped all the same.
func TestStopInVain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var r Runner
		first := hold(t, t.Context(), &r)
		cause := errors.New("read-only by now")
		if err := r.Stop(t.Context(), cause, time.Minute); err == nil || err.Error() != "a rekey has not ended within 1m0s" {
			t.Errorf("a work that goes on: %v", err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := r.Stop(ctx, cause, time.Minute); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a caller with less patience: %v", err)
		}
		if err := context.Cause(first.ctx); !errors.Is(err, cause) {
			t.Errorf("the work ends for %v", err)
		}
		first.end(t)
	})
}

func TestAlone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var r Runner
		first := hold(t, t.Context(), &r)
		begun := time.Now()
		if err := r.Alone("remount", func() error { t.Error("beside a work"); return nil }); !errors.Is(err, ErrBusy) || time.Since(begun) != 0 {
			t.Errorf("beside a work: %v after %v", err, time.Since(begun))
		}
		first.end(t)
		failed := errors.New("failed")
		err := r.Alone("remount", func() error {
			if err := r.Stop(t.Context(), failed, time.Minute); err != nil { // must not wait for itself
				t.Errorf("Stop: %v", err)
			}
			if _, ok := Now[steps](&r); ok {
				t.Error("is told of as a work")
			}
			if err := Do(t.Context(), &r, "rekey", asker, nothing); err == nil || err.Error() != "another remount of this datastore is under way" {
				t.Errorf("a work meanwhile: %v", err)
			}
			return failed
		})
		if err != failed {
			t.Errorf("error %v, want that of the function", err)
		}
		if err := Do(t.Context(), &r, "rekey", asker, nothing); err != nil {
			t.Errorf("a work afterwards: %v", err)
		}
	})
}

// A work that panics leaves the Runner free: an HTTP server survives a panic.
func TestPanic(t *testing.T) {
	t.Parallel()
	var r Runner
	func() {
		defer func() {
			if recover() == nil {
				t.Error("no panic")
			}
		}()
		_ = Do(t.Context(), &r, "rekey", asker, func(context.Context, func(steps)) { panic("test") })
	}()
	if err := Do(t.Context(), &r, "rekey", asker, nothing); err != nil {
		t.Errorf("after a panic: %v", err)
	}
}
