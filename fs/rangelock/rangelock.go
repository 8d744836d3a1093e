// Package rangelock locks ranges of one file: reads share a range, a write has a range alone, and
// operations on other ranges go on meanwhile.
//
// The package promises fairness (first come, first served). Once the number of concurrent
// operations has peaked, no operation allocates. Ranges count in units of the caller's choice; the
// package knows nothing of files, sizes or I/O. A file of two parts, one of them being moved, has
// one Lock above the Locks of the parts.
package rangelock

import "sync"

// NoUnit is greater than the number of any unit. A range up to NoUnit has no end.
const NoUnit = 1 << 62

// Lock is a readers-writer lock over ranges of units, first come, first served. A hold is granted
// when no earlier hold, granted or waiting, conflicts. So no hold starves, and a waiting hold
// delays only later holds that overlap. The zero Lock is ready; a Lock must not be copied. All
// methods are safe for concurrent use.
//
// Invariants:
//   - The order of the list is the order of Acquire.
//   - A hold is granted exactly when no hold before it in the list conflicts. Release restores the
//     invariant for the holds behind the released one.
//   - Two granted holds never conflict.
//
// A goroutine has at most one hold of a Lock at a time, so holds of one Lock have no order to
// keep. mu is a leaf: under mu nothing is called and no I/O is done. There are as many holds as
// operations under way on one file, rarely over 64, so a list is faster than a tree. Released
// holds are kept for the next Acquire, which then allocates nothing.
type Lock struct {
	mu          sync.Mutex
	first, last *Hold // guarded by mu, with every next and prev
	free        *Hold // singly linked by next
}

// Hold is a range [from, to) of units. An operation has the range or waits for the range.
type Hold struct {
	prev, next *Hold
	from, to   int64
	shared     bool
	granted    bool          // guarded by Lock.mu
	ready      chan struct{} // of one slot: receives when a waiting hold is granted
}

// conflicts reports whether two holds exclude one another.
func (h *Hold) conflicts(o *Hold) bool {
	return h.from < o.to && o.from < h.to && !(h.shared && o.shared)
}

// Acquire waits until [from, to) can be held, shared with other shared holds or alone. The wait
// ends when the earlier holds that conflict are released; no context ends the wait. The caller
// passes the Hold to Release.
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

// Release gives h back. The caller must not use h again, since a later Acquire may return the same
// Hold.
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

// blocked reports whether a hold before h conflicts with h. The caller holds mu.
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
