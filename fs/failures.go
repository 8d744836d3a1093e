package fs

import (
	"maps"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// mostFailures bounds the failures with one errno that are logged in toldFor.
	mostFailures = 256
	// mostAtOnce bounds the failures logged in atOnce, and mostAlike those of one operation: better
	// than a line dropped by the log's own bounds is one when the request fails again.
	mostAtOnce, mostAlike = 15, 5
	atOnce                = 1200 * time.Millisecond // longer than the second that the log counts by
)

// failure is a failed request; each failure is logged once.
type failure struct {
	op    string
	file  toldFile
	name  string // in file, a directory
	errno unix.Errno
}

// failures are the logged failures, by errno: when one errno strikes a whole datastore, there is
// room for the others. Safe for concurrent use.
type failures struct {
	mu   sync.Mutex // a leaf
	told map[unix.Errno]map[failure]time.Time
	pace pace             // of all
	of   map[string]*pace // of each operation
}

// first notes a failure, and gives the number of failures with x's errno noted by now. 0: x is not
// to be logged, having been logged already, or after too many others.
func (t *failures) first(x failure, now time.Time) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.told == nil {
		t.told, t.of = make(map[unix.Errno]map[failure]time.Time), make(map[string]*pace)
	}
	about := t.told[x.errno]
	if about == nil {
		about = make(map[failure]time.Time)
		t.told[x.errno] = about
	}
	if _, known := about[x]; known || len(about) == mostFailures {
		maps.DeleteFunc(about, func(_ failure, since time.Time) bool { return now.Sub(since) >= toldFor })
	}
	if _, known := about[x]; known || len(about) == mostFailures {
		return 0
	}
	op := t.of[x.op]
	if op == nil {
		op = new(pace)
		t.of[x.op] = op
	}
	if op.isFull(mostAlike, now) || t.pace.isFull(mostAtOnce, now) {
		return 0
	}
	op.note(mostAlike, now)
	t.pace.note(mostAtOnce, now)
	about[x] = now
	return len(about)
}

// pace knows when the last few lines were logged.
type pace struct {
	at   []time.Time
	next int // the oldest one
}

func (p *pace) isFull(most int, now time.Time) bool {
	return len(p.at) == most && now.Sub(p.at[p.next]) < atOnce
}

func (p *pace) note(most int, now time.Time) {
	if len(p.at) < most {
		p.at = append(p.at, now)
		return
	}
	p.at[p.next] = now
	p.next = (p.next + 1) % most
}
