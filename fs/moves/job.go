package moves

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"vmcryptfs/fs"
	"vmcryptfs/fs/move"
	"vmcryptfs/layout"
)

// State is where a move stands.
type State string

// The states.
const (
	Forward State = "forward"
	Back    State = "back"
	Paused  State = "paused"
	Refused State = "refused" // by BACKING; tried again after a while
)

// Pauses between two tries of what BACKING refused.
const (
	firstRetry = time.Second
	lastRetry  = time.Minute
)

// View is one move, to be shown. The JSON is that of `moves list`.
type View struct {
	ID        string `json:"id"`
	Path      string `json:"path"`
	Kind      string `json:"kind"`
	State     State  `json:"state"`
	Why       string `json:"why,omitempty"`
	Size      int64  `json:"size"`
	Watermark int64  `json:"watermark"` // bytes; -1: all is in the old file
}

// job is one move under way.
type job struct {
	id   layout.FileID
	path string
	kind layout.MoveKind
	pace move.Pace

	mu     sync.Mutex
	paused bool
	cancel bool          // wanted: the way back
	change chan struct{} // closed when paused or cancel changes
	view   View
}

func newJob(id layout.FileID, path string, kind layout.MoveKind, pace move.Pace) *job {
	return &job{id: id, path: path, kind: kind, pace: pace, change: make(chan struct{}),
		view: View{ID: id.String(), Path: path, Kind: kind.String(), State: Forward}}
}

// set changes what is wanted of the job.
func (j *job) set(change func()) {
	j.mu.Lock()
	defer j.mu.Unlock()
	change()
	close(j.change)
	j.change = make(chan struct{})
}

// show is the job as it stands.
func (j *job) show() View {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.view
}

func (j *job) note(state State, why error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.view.State, j.view.Why = state, ""
	if why != nil {
		j.view.Why = why.Error()
	}
}

// gate waits while the job is paused, and reports whether the way back is wanted.
func (j *job) gate(ctx context.Context) (back bool, err error) {
	for {
		j.mu.Lock()
		paused, back, change := j.paused, j.cancel, j.change
		j.mu.Unlock()
		if !paused {
			return back, ctx.Err()
		}
		j.note(Paused, nil)
		select {
		case <-change:
		case <-ctx.Done():
			return back, ctx.Err()
		}
	}
}

// errRefused is what BACKING, or a key server, refused to a move that is tried again.
type errRefused struct{ error }

// run takes the job to its end.
func (j *job) run(ctx context.Context, c *Config) error {
	wait := firstRetry
	for {
		err := j.try(ctx, c)
		refused, again := errors.AsType[errRefused](err)
		if !again {
			return err
		}
		j.note(Refused, refused.error)
		c.Log.Warn("a move is refused, and is tried again", "file", j.path, "move", j.id, "error", refused.error)
		if err := j.pause(ctx, wait); err != nil {
			return err
		}
		wait = min(2*wait, lastRetry)
	}
}

// pause waits, or until something else is wanted of the job.
func (j *job) pause(ctx context.Context, wait time.Duration) error {
	j.mu.Lock()
	change := j.change
	j.mu.Unlock()
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-change:
	case <-ctx.Done():
	}
	return ctx.Err()
}

// try is run up to a refusal.
func (j *job) try(ctx context.Context, c *Config) error {
	m, err := c.FS.OpenMover(j.path)
	if err != nil {
		return errRefused{err}
	}
	err = j.moved(ctx, c, m)
	return errors.Join(err, m.Close())
}

func (j *job) moved(ctx context.Context, c *Config, m *fs.Mover) error {
	if m.Pair() == nil {
		if err := m.Begin(ctx, j.kind, j.id); err != nil {
			return err
		}
	}
	if err := j.steps(ctx, c, m); err != nil {
		return err
	}
	if err := m.End(ctx); err != nil {
		return errRefused{err}
	}
	return nil
}

// steps takes the pair of m to where one file has the whole content.
func (j *job) steps(ctx context.Context, c *Config, m *fs.Mover) error {
	for {
		back, err := j.gate(ctx)
		if err != nil {
			return err
		}
		p := m.Pair()
		if p == nil {
			return fmt.Errorf("%s: %w", j.path, fs.ErrNotMoving)
		}
		done, err := j.step(ctx, c, p, back)
		j.measure(p)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			return errRefused{err}
		case done:
			return nil
		}
	}
}

// step is one step in the direction wanted.
func (j *job) step(ctx context.Context, c *Config, p *move.Pair, back bool) (done bool, err error) {
	towardsClear := (p.Kind() == layout.MoveDecrypt) != back && p.Kind() != layout.MoveDeep
	if towardsClear && !c.Allowed(j.path) {
		back = !back
	}
	if p.Watermark() == 0 || p.Watermark() == layout.AllInSource {
		return true, nil
	}
	if err := p.Turn(back); err != nil {
		return false, err
	}
	if !back {
		j.note(Forward, nil)
		return p.Step(ctx, j.pace)
	}
	j.note(Back, nil)
	if done, err := p.Back(ctx, j.pace); !done || err != nil {
		return false, err
	}
	return true, p.Return()
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
