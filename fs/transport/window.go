package transport

import (
	"sync/atomic"
	"time"
)

// spinLimit is the longest that a worker looks for the next request before it sleeps:
// about what it costs two threads to go to sleep and to be woken.
const spinLimit = 50 * time.Microsecond

// window is how long to look for the next request before sleeping, as KVM's
// halt_poll_ns: it grows while requests come so soon that looking on
// would have met them, and shrinks to nothing while they do not.
type window struct {
	alone bool // one CPU: nobody else could send a request meanwhile
	ns    atomic.Int64
}

func (w *window) length() time.Duration { return time.Duration(w.ns.Load()) }

// waited says how long a worker waited for a request, having looked for it in vain for
// the window's length.
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
