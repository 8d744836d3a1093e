package cryptfile

import "sync"

// noUnit is greater than the number of any data unit: a range up to it has no end.
const noUnit = 1 << 62

// rangeLock is a readers-writer lock over ranges of data units, first come, first served:
// a hold is granted when no earlier hold, granted or waiting, conflicts with it. So
// nobody starves, and a hold that waits makes those behind it wait only where they
// overlap it.
//
// Invariants: list order is the order of acquire. A hold is granted exactly when nothing
// before it in the list conflicts with it; release restores that for the holds behind
// the one it takes out. Two granted holds never conflict.
//
// A goroutine has at most one hold of a File at a time: there is no lock order to keep.
// mu is a leaf: nothing is called and no I/O done under it. There are as many holds as
// operations under way on one file, rarely over 64, so a list beats a tree; released
// holds are kept for the next acquire, which then allocates nothing.
type rangeLock struct {
	mu          sync.Mutex
	first, last *hold // guarded by mu, with every next and prev
	free        *hold // singly linked by next
}

// hold is a range [from, to) of data units that an operation has, or waits for.
type hold struct {
	prev, next *hold
	from, to   int64
	shared     bool
	granted    bool          // guarded by rangeLock.mu
	ready      chan struct{} // of one slot: receives when a hold that waited is granted
}

// conflicts tells if two holds exclude one another.
func (h *hold) conflicts(o *hold) bool {
	return h.from < o.to && o.from < h.to && !(h.shared && o.shared)
}

// acquire waits for [from, to), shared with other shared holds or alone.
func (l *rangeLock) acquire(from, to int64, shared bool) *hold {
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

// release gives h back, which the caller must not touch again.
func (l *rangeLock) release(h *hold) {
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

// blocked tells if a hold before h conflicts with it. Caller has mu.
func (l *rangeLock) blocked(h *hold) bool {
	for o := h.prev; o != nil; o = o.prev {
		if o.conflicts(h) {
			return true
		}
	}
	return false
}

// take is a hold to use, with no links. Caller has mu.
func (l *rangeLock) take() *hold {
	h := l.free
	if h == nil {
		return &hold{ready: make(chan struct{}, 1)}
	}
	l.free, h.next = h.next, nil
	return h
}

func (l *rangeLock) push(h *hold) {
	h.prev = l.last
	if l.last != nil {
		l.last.next = h
	} else {
		l.first = h
	}
	l.last = h
}

func (l *rangeLock) unlink(h *hold) {
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
