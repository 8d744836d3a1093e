package transport

import (
	"sync/atomic"
	"time"
)

// spinLimit is the longest time for which a worker looks for the next request before sleeping:
// about the cost of sending two threads to sleep and waking them.
const spinLimit = 50 * time.Microsecond

// window is how long to look for the next request before sleeping, like KVM's halt_poll_ns. The
// window grows while a longer look would have met the next request, and shrinks to nothing while
// requests come later.
type window struct {
	alone bool // one CPU: nobody else could send a request meanwhile
	ns    atomic.Int64
}

func (w *window) length() time.Duration { return time.Duration(w.ns.Load()) }

// waited records how long a worker waited for a request, after a vain look as long as the window.
func (w *window) waited(d time.Duration) {
	length := w.length()
	switch {
	case w.alone:
	case d > spinLimit:
		w.ns.Store(int64(length / 2))
	default:
		w.ns.Store(int64(min(2*length+5*time.Microsecond, spinLimit)))
	}
}
