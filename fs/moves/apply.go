package moves

import (
	"context"
	"errors"
	"sync"
	"time"

	"vmcryptfs/fs/wire"
	"vmcryptfs/layout"
)

// Apply moves what r asks for, and calls each with the progress, one call at a time. The end of ctx and
// an error of each pause what the request began. What was not moved is listed in the Summary, which is
// valid also beside an error. Places below the paths of r that adopt do so no more when nothing below
// them differs.
func (m *Manager) Apply(ctx context.Context, r Request, each func(Event) error) (Summary, error) {
	if err := r.check(); err != nil {
		return Summary{}, err
	}
	if err := m.config.Store.Verify(ctx, m.config.Keys); err != nil {
		return Summary{}, err
	}
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	a := &apply{m: m, request: r, each: each, stop: stop, start: time.Now(),
		mine: map[*job]bool{}, limit: &limiter{rate: r.Rate}, slots: make(chan struct{}, r.Jobs)}
	err := a.passes(ctx)
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	out, done := context.WithTimeout(context.WithoutCancel(ctx), outTime)
	defer done()
	return a.summary(), errors.Join(err, m.flush(out))
}

// apply is one Apply under way.
type apply struct {
	m       *Manager
	request Request
	each    func(Event) error
	stop    context.CancelCauseFunc // with an error of each
	start   time.Time
	limit   *limiter
	slots   chan struct{}
	mine    map[*job]bool // which the request began; used by the caller's goroutine alone

	mu    sync.Mutex // guards what is below, and calls of each
	event Event
	sum   Summary
	rest  wire.Rest // of the last pass
}

func (a *apply) summary() Summary {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.sum.Rest = a.rest
	a.sum.Complete = a.rest.Failed == 0 && a.sum.Left == 0
	return a.sum
}

// passes walks and moves, until a walk finds nothing to do. A deep request finds every encrypted file
// each time, so it walks once.
func (a *apply) passes(ctx context.Context) error {
	for pass := 1; ; pass++ {
		a.rest = wire.Rest{}
		todo, err := a.plan(ctx)
		if err != nil {
			return err
		}
		before := a.moved()
		if err := a.do(ctx, todo); err != nil {
			a.left(int64(len(todo)) - (a.moved() - before))
			return err
		}
		done := a.moved() - before
		switch {
		case a.request.Deep:
			a.left(int64(len(todo)) - done)
			return nil
		case done == 0 || pass == mostPasses:
			return errors.Join(a.recount(ctx), a.m.settle(ctx, a.request.Paths))
		}
	}
}

func (a *apply) moved() int64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.sum.Moved
}

func (a *apply) left(n int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.sum.Left = n
}

// plan finds what there is to do.
func (a *apply) plan(ctx context.Context) (todo []*Differ, err error) {
	p := plan{Config: &a.m.config, deep: a.request.Deep, broken: a.failed,
		found: func(d *Differ) error {
			if todo = append(todo, d); len(todo) == mostPlanned {
				return errWalk
			}
			return nil
		}}
	for _, at := range a.request.Paths {
		err := p.below(ctx, at)
		switch {
		case err == nil:
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case errors.Is(err, errWalk):
			return todo, a.planned(todo)
		default:
			_ = a.failed(at, err)
		}
	}
	return todo, a.planned(todo)
}

// planned tells what was found.
func (a *apply) planned(todo []*Differ) error {
	var bytes int64
	for _, d := range todo {
		if d.kind != 0 || d.mark != (layout.FileID{}) {
			bytes += d.Bytes
		}
	}
	return a.tell(func(e *Event) {
		e.Files += int64(len(todo))
		e.Of += bytes
	})
}

// recount finds what differs yet.
func (a *apply) recount(ctx context.Context) error {
	sum, err := a.m.Check(ctx, Check{Paths: a.request.Paths}, func(Differ) error { return nil })
	a.left(sum.Files)
	return err
}

// failed notes a file that was not moved; its error is nil, for a walk to go on.
func (a *apply) failed(at string, err error) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.rest.Add(at, err)
	return nil
}

// done notes a file that was moved.
func (a *apply) done(d *Differ) error {
	a.mu.Lock()
	a.sum.Moved++
	a.sum.Bytes += d.Bytes
	a.mu.Unlock()
	return a.tell(func(e *Event) { e.Moved++ })
}

// tell changes the progress and tells it. An error of each stops the request.
func (a *apply) tell(change func(*Event)) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	e := &a.event
	change(e)
	spent := time.Since(a.start)
	if spent > time.Second {
		e.Rate = int64(float64(e.Bytes) / spent.Seconds())
	}
	if e.Left = 0; e.Rate > 0 && e.Of > e.Bytes {
		e.Left = (e.Of - e.Bytes) / e.Rate
	}
	err := a.each(*e)
	if err != nil {
		a.stop(err)
	}
	return err
}
