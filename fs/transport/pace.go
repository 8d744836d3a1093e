package transport

import (
	"sync"
	"sync/atomic"
	"time"
)

// slowPace is the least time of a READ or WRITE for which waking another thread first is worth
// the cost.
const slowPace = 50 * time.Microsecond

// pace is the recent time of READ and WRITE: a moving mean over about eight requests.
type pace struct{ ns atomic.Int64 }

func (p *pace) slow() bool { return time.Duration(p.ns.Load()) > slowPace }

// took counts a request in. A very long one (the thread was preempted, a disk woke up)
// must not count for more than a few.
func (p *pace) took(d time.Duration) {
	d = min(d, 10*slowPace)
	mean := p.ns.Load()
	p.ns.Store(mean + (int64(d)-mean)/8) // a count lost to another worker's does not matter
}

// overdue is the longest wait for a request expected to be fast: nobody reads requests during the
// wait.
const overdue = 5 * time.Millisecond

// watch replaces a reader whose request hangs. The timer runs only while the reader answers
// requests.
type watch struct {
	loop  *loop
	armed atomic.Bool
	began atomic.Uint64 // requests begun by the reader

	mu    sync.Mutex // the timer's
	timer *time.Timer
	ended bool
	seen  uint64 // began, the last time the timer ran
}

func newWatch(l *loop) *watch { return &watch{loop: l} }

// arm records that the reader begins a request.
func (w *watch) arm() {
	w.began.Add(1)
	if w.armed.Load() || !w.armed.CompareAndSwap(false, true) {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.ended:
	case w.timer == nil:
		w.timer = time.AfterFunc(overdue, w.look)
	default:
		w.timer.Reset(overdue)
	}
}

func (w *watch) look() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ended {
		return
	}
	began := w.began.Load()
	if began == w.seen {
		// Nothing was begun since the last look. Either the reader sleeps, or the reader's
		// request hangs; then another worker reads on. The watch is disarmed before the attempt:
		// a request begun meanwhile is either seen by the attempt or arms the watch anew.
		w.armed.Store(false)
		if w.loop.tryPromote() {
			return
		}
		w.armed.Store(true)
	}
	w.seen = began
	w.timer.Reset(overdue)
}

func (w *watch) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ended = true
	if w.timer != nil {
		w.timer.Stop()
	}
}
