package moves

import (
	"context"
	"errors"
	"sync"
	"time"

	"vmcryptfs/layout"
)

// Pauses between two tries of what BACKING refused.
const (
	firstRetry = time.Second
	lastRetry  = time.Minute
)

// dropEvery is the pause between two looks at a job that is given up.
const dropEvery = 10 * time.Millisecond

// Why a job ends, or stops for a while.
var (
	errStopped  = errors.New("the move was paused")
	errDropped  = errors.New("the move was given up before it began")
	errNotOurs  = errors.New("another move of the file is under way")
	errWaits    = errors.New("waits for its turn")
	errTurned   = errors.New("the file stays as it was: the move went back")
	errVanished = errors.New("the file is gone, or its name leads to another one")
)

// job is one move under way. Its goroutine is started by Manager.start.
type job struct {
	id    layout.FileID
	rate  *limiter
	slots chan struct{}      // has one element for each job that steps; nil: no bound
	told  func(copied int64) // of what was copied; nil: nobody asks
	ended chan struct{}      // closed when the job is over, or its Manager
	err   error              // valid once ended is closed

	mu     sync.Mutex // guards what is below; a leaf
	path   string
	kind   layout.MoveKind // 0: found, and not opened yet
	begun  bool            // the file was seen to move
	marked bool            // a begin failed and left its mark on the file
	paused bool
	halted string        // why every job is paused; empty: it is not
	seen   bool          // by this process, as a Pair
	cancel bool          // wanted: the way back
	drop   bool          // wanted: not to begin
	change chan struct{} // closed when one of the three changes
	view   View
}

func newJob(id layout.FileID, t Task) *job {
	j := &job{id: id, path: t.Path, kind: t.Kind, ended: make(chan struct{}), change: make(chan struct{})}
	j.view = View{ID: id.String(), Path: t.Path, State: Paused, Why: errWaits.Error(), Watermark: layout.AllInSource}
	if t.Kind != 0 {
		j.view.Kind = t.Kind.String()
	}
	return j
}

// set changes what is wanted of the job.
func (j *job) set(change func()) {
	j.mu.Lock()
	defer j.mu.Unlock()
	change()
	close(j.change)
	j.change = make(chan struct{})
}

// wanted is what is wanted of the job: to stop, and why; the way back; and what is closed when that
// changes.
func (j *job) wanted() (stop bool, why string, back bool, change <-chan struct{}) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.paused || j.halted != "", j.halted, j.cancel, j.change
}

// show is the job as it stands.
func (j *job) show() View {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.view.shown()
}

// at is the path of the job's file.
func (j *job) at() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.path
}

func (j *job) note(state State, why string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.view.State, j.view.Why = state, why
}

// isListed reports whether the id has to stay listed: the file moves, or bears the mark.
func (j *job) isListed() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.begun || j.marked
}

// isGivenUp reports whether the job is not to begin.
func (j *job) isGivenUp() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.cancel || j.drop
}

// isBegun reports whether the file was seen to move.
func (j *job) isBegun() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.begun
}

// awaitDrop waits until a job that is given up is over, or has begun all the same.
func (j *job) awaitDrop() {
	tick := time.NewTicker(dropEvery)
	defer tick.Stop()
	late := time.After(outTime)
	for !j.isListed() {
		select {
		case <-j.ended:
			return
		case <-late:
			return
		case <-tick.C:
		}
	}
}

// gate waits while the job is paused. errDropped: it is cancelled, and never began.
func (j *job) gate(ctx context.Context) error {
	for {
		stop, why, _, change := j.wanted()
		if j.isGivenUp() && !j.isListed() {
			return errDropped
		}
		if !stop {
			return ctx.Err()
		}
		j.note(Paused, why)
		select {
		case <-change:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// turn waits until one of the slots is free. The caller calls done.
func (j *job) turn(ctx context.Context) (done func(), err error) {
	if j.slots == nil {
		return func() {}, nil
	}
	_, _, _, change := j.wanted()
	select {
	case j.slots <- struct{}{}:
		return func() { <-j.slots }, nil
	default:
	}
	j.note(Paused, errWaits.Error())
	select {
	case j.slots <- struct{}{}:
		return func() { <-j.slots }, nil
	case <-change:
		return nil, errStopped
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// run takes the job to its end. nil: the move is over, the file is as wanted, or as it was. Another
// error but that of ctx: the move did not begin.
func (j *job) run(ctx context.Context, m *Manager) error {
	wait, last := firstRetry, ""
	for {
		if err := j.gate(ctx); err != nil {
			return err
		}
		before := j.show().Watermark
		err := j.try(ctx, m)
		switch {
		case err == nil, ctx.Err() != nil, j.isFinal(err):
			return err
		case errors.Is(err, errStopped):
			continue
		}
		j.note(Refused, err.Error())
		if text := err.Error(); text != last {
			last = text
			m.config.Log.Warn("a move is refused, and is tried again", "file", j.at(), "move", j.id, "error", err)
		}
		if j.show().Watermark != before {
			wait = firstRetry
		}
		if err := j.pause(ctx, wait); err != nil {
			return err
		}
		wait = min(2*wait, lastRetry)
	}
}

// pause waits, or until something else is wanted of the job.
func (j *job) pause(ctx context.Context, wait time.Duration) error {
	_, _, _, change := j.wanted()
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-change:
	case <-ctx.Done():
	}
	return ctx.Err()
}
