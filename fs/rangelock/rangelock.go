// Package rangelock locks ranges of one file: reads share a range, a write has its range alone,
// and operations on other ranges go on meanwhile.
//
// The package promises fairness (first come, first served), and allocates nothing once as many
// operations were under way at a time as are now. It counts in units that its user chooses, and
// knows nothing of files, sizes or I/O. A file of two parts, one of which is being moved, has a
// Lock of its own above those of its parts.
package rangelock

import "sync"

// NoUnit is greater than the number of any unit: a range up to it has no end.
const NoUnit = 1 << 62

// Lock is a readers-writer lock over ranges of units, first come, first served: a hold is
// granted when no earlier hold, granted or waiting, conflicts with it. So no hold starves, and
// a hold that waits makes the holds behind it wait only where they overlap it. The zero Lock is
// ready; a Lock must not be copied. All methods are safe for concurrent use.
//
// Invariants: list order is the order of Acquire. A hold is granted exactly when nothing
// before it in the list conflicts with it; Release restores that for the holds behind
// the one it takes out. Two granted holds never conflict.
//
// A goroutine has at most one hold of a Lock at a time: there is no lock order to keep.
// mu is a leaf: nothing is called and no I/O done under it. There are as many holds as
// operations under way on one file, rarely over 64, so a list beats a tree; released
// holds are kept for the next Acquire, which then allocates nothing.
type Lock struct {
	mu          sync.Mutex
	first, last *Hold // guarded by mu, with every next and prev
	free        *Hold // singly linked by next
}

// Hold is a range [from, to) of units that an operation has, or waits for.
type Hold struct {
	prev, next *Hold
	from, to   int64
	shared     bool
	granted    bool          // guarded by Lock.mu
	ready      chan struct{} // of one slot: receives when a hold that waited is granted
}

// conflicts reports whether two holds exclude one another.
func (h *Hold) conflicts(o *Hold) bool {
	return h.from < o.to && o.from < h.to && !(h.shared && o.shared)
}

// Acquire waits until [from, to) can be held, shared with other shared holds or alone. The wait
// is over when the holds before it are released; nothing else ends it.
func (l *Lock) Acquire(from, to int64, shared bool) *Hold {
	l.mu.Lock()
	h := l.take()
	h.from, h.to, h.shared = from, to, shared
	l.push(h)
	h.granted = !l.blocked(h)
	granted := h.granted
	l.mu.Unlock()
	if !granted {
		<-h.ready
	}
	return h
}

// Release gives h back. The caller must not touch h again: a later Acquire may be given it.
func (l *Lock) Release(h *Hold) {
	l.mu.Lock()
	defer l.mu.Unlock()
	behind := h.next
	l.unlink(h)
	for w := behind; w != nil; w = w.next {
		if !w.granted && w.conflicts(h) && !l.blocked(w) {
			w.granted = true
			w.ready <- struct{}{} // never blocks: one grant for each acquire
		}
	}
	h.next, l.free = l.free, h
}

// blocked reports whether a hold before h conflicts with it. Caller has mu.
func (l *Lock) blocked(h *Hold) bool {
	for o := h.prev; o != nil; o = o.prev {
		if o.conflicts(h) {
			return true
		}
	}
	return false
}

// take is a hold to use, with no links. Caller has mu.
func (l *Lock) take() *Hold {
	h := l.free
	if h == nil {
		return &Hold{ready: make(chan struct{}, 1)}
	}
	l.free, h.next = h.next, nil
	return h
}

func (l *Lock) push(h *Hold) {
	h.prev = l.last
	if l.last != nil {
		l.last.next = h
	} else {
		l.first = h
	}
	l.last = h
}

func (l *Lock) unlink(h *Hold) {
	if h.prev != nil {
		h.prev.next = h.next
	} else {
		l.first = h.next
	}
	if h.next != nil {
		h.next.prev = h.prev
	} else {
		l.last = h.prev
	}
	h.prev, h.next = nil, nil
}
