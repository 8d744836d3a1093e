package backing

import (
	"context"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"vmcryptfs/layout"
)

const (
	// recountEvery is the pause between walks for which nobody asks. They find what others
	// changed in BACKING.
	recountEvery = 5 * time.Minute
	// recountShare is how many times longer than the work of a walk the pause after it is
	// at least.
	recountShare = 20
	// askedShare is how many times older than the work of a walk that nobody waits for the
	// counts must be, for somebody who asks to have it made.
	askedShare = 10
	// paceEntries are looked at between two rests of a walk for which nobody waits.
	paceEntries = 256
	// paceRest is how many times longer than the work before it a rest is, longestRest its
	// bound.
	paceRest    = 3
	longestRest = 100 * time.Millisecond
)

// Counted is the census as it is kept.
type Counted struct {
	Census             // ByClass is not to be modified
	Complete bool      // of a whole walk; else the counts so far
	At       time.Time // when that walk began, zero for counts so far: what was done before is counted
	Err      error     // why the walk ended early
}

// kept is the census that Keep keeps.
type kept struct {
	asked   chan struct{} // one token: a walk is wanted
	waiting atomic.Int64  // callers that wait for a walk

	mu      sync.Mutex    // guards what follows; never held over I/O
	begun   uint64        // walks
	ended   uint64        // the last walk that ended
	changed chan struct{} // closed when one ends, and then another
	last    Counted       // of the last walk that ended; At is zero before
	soFar   Census        // of the first one, while it is under way
	known   remembered    // what the last one saw
	again   time.Duration // the work of the next walk, if no file changes
}

func (k *kept) init() {
	k.asked = make(chan struct{}, 1)
	k.changed = make(chan struct{})
}

func (k *kept) remembered() remembered {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.known
}

// Counted gives the census that Keep keeps. Where a walk takes no longer than
// patience, the answer counts all that was done before the call; otherwise it is of the last
// walk, or what the first one has counted so far, and another walk begins if it is old. It takes no longer than patience, and
// makes no call to BACKING; with none the census is not brought up to date.
func (k *Counter) Counted(ctx context.Context, patience time.Duration) Counted {
	k.mu.Lock()
	wanted := k.begun + 1
	again, age := k.again, time.Since(k.last.At)
	k.mu.Unlock()
	if patience <= 0 {
		return k.now()
	}
	if again > patience { // who asks next will have it
		if age > askedShare*again {
			k.ask()
		}
		return k.now()
	}
	k.waiting.Add(1)
	defer k.waiting.Add(-1)
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	k.ask()
	for {
		ended, changed := k.progress()
		if ended >= wanted {
			return k.now()
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return k.now()
		}
	}
}

// ask wants a walk that begins from now on.
func (k *kept) ask() {
	select {
	case k.asked <- struct{}{}:
	default:
	}
}

func (k *kept) progress() (ended uint64, changed <-chan struct{}) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.ended, k.changed
}

func (k *kept) now() Counted {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.ended == 0 {
		so := Counted{Census: k.soFar}
		so.ByClass = maps.Clone(k.soFar.ByClass)
		return so
	}
	return k.last
}

// Keep keeps the census for Counted until ctx ends: one call at a time. A walk for
// which nobody waits rests most of the time.
func (k *Counter) Keep(ctx context.Context) {
	for {
		worked := k.recount(ctx)
		timer := time.NewTimer(max(recountEvery, recountShare*worked))
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		case <-k.asked:
			timer.Stop()
		}
	}
}

// recount is one walk; worked is how long the walk worked.
func (k *Counter) recount(ctx context.Context) (worked time.Duration) {
	c := k.begin()
	begun := time.Now()
	k.mu.Lock()
	k.begun++
	k.mu.Unlock()
	next := make(remembered, 0, len(c.known)+paceEntries)
	entries, from := 0, begun
	c.saw = func(s seen, version *Stamp, class layout.Class) {
		if version != nil {
			next = next.add(hashOf(k.seed, *version, class), version, s, begun)
		}
		if entries++; entries%paceEntries == 0 {
			work := time.Since(from)
			worked += work
			k.tell(c.Census)
			k.rest(ctx, paceRest*work)
			from = time.Now()
		}
	}
	err := c.take(ctx)
	worked += time.Since(from)
	if ctx.Err() != nil {
		return worked
	}
	k.end(Counted{Census: c.Census, Complete: err == nil, At: begun, Err: err}, next.sorted(), worked-c.looking)
	return worked
}

// tell publishes counts so far.
func (k *kept) tell(c Census) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.ended == 0 {
		k.soFar = c
		k.soFar.ByClass = maps.Clone(c.ByClass)
	}
}

// rest leaves BACKING and the processors to others, unless somebody waits.
func (k *kept) rest(ctx context.Context, d time.Duration) {
	if k.waiting.Load() > 0 {
		return
	}
	timer := time.NewTimer(min(d, longestRest))
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

func (k *kept) end(counted Counted, known remembered, again time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.ended = k.begun
	k.last, k.known, k.again = counted, known, again
	k.soFar = Census{}
	close(k.changed)
	k.changed = make(chan struct{})
}
