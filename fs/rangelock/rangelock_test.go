package rangelock

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
)

// waiting reports whether h is not granted yet, by the state of the lock.
func waiting(l *Lock, h *Hold) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !h.granted
}

// queue acquires in the background, and returns once the hold stands in the list.
func queue(l *Lock, from, to int64, shared bool) (h *Hold, granted chan struct{}) {
	l.mu.Lock()
	before := l.last
	l.mu.Unlock()
	granted = make(chan struct{})
	go func() {
		l.Acquire(from, to, shared)
		close(granted)
	}()
	for {
		l.mu.Lock()
		h = l.last
		l.mu.Unlock()
		if h != before {
			return h, granted
		}
	}
}

func TestRangeLockConflicts(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name         string
		from, to     int64
		shared, want bool // want: a hold of the range waits behind [10, 20)
		behindShared bool // a hold of the range waits behind [10, 20) shared
	}{
		{"before", 0, 10, false, false, false},
		{"after", 20, NoUnit, false, false, false},
		{"inside", 12, 13, false, true, true},
		{"around", 0, NoUnit, false, true, true},
		{"over the beginning", 5, 11, false, true, true},
		{"over the end", 19, 25, false, true, true},
		{"shared", 10, 20, true, true, false},
		{"shared before", 0, 10, true, false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, shared := range []bool{false, true} {
				var l Lock
				first := l.Acquire(10, 20, shared)
				h, granted := queue(&l, c.from, c.to, c.shared)
				want := c.want
				if shared {
					want = c.behindShared
				}
				if got := waiting(&l, h); got != want {
					t.Errorf("behind a hold with shared %t: waits %t, want %t", shared, got, want)
				}
				l.Release(first)
				<-granted
				l.Release(h)
				if l.first != nil || l.last != nil {
					t.Error("holds are left")
				}
			}
		})
	}
}

// Readers do not overtake a waiting writer. A waiting hold delays only overlapping holds.
func TestRangeLockIsFair(t *testing.T) {
	t.Parallel()
	var l Lock
	reader := l.Acquire(0, 10, true)
	writer, writerGranted := queue(&l, 5, 15, false)
	late, lateGranted := queue(&l, 0, 10, true)
	other := l.Acquire(20, 30, false) // would hang the test by waiting
	if !waiting(&l, writer) || !waiting(&l, late) {
		t.Fatal("the writer, or the reader behind it, did not wait")
	}
	l.Release(reader)
	<-writerGranted
	if !waiting(&l, late) {
		t.Error("the late reader came in with the writer")
	}
	l.Release(writer)
	<-lateGranted
	l.Release(late)
	l.Release(other)
}

// Many goroutines: nobody is in a unit with a writer.
func TestRangeLockExcludes(t *testing.T) {
	t.Parallel()
	const units = 16
	var l Lock
	var writers, readers [units]atomic.Int32
	var wg sync.WaitGroup
	for g := range 16 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(g), 7))
			for range 500 {
				from := rng.Int64N(units)
				to := from + 1 + rng.Int64N(units-from)
				shared := rng.IntN(2) == 0
				h := l.Acquire(from, to, shared)
				in := &writers
				if shared {
					in = &readers
				}
				for u := from; u < to; u++ {
					in[u].Add(1)
					w, r := writers[u].Load(), readers[u].Load()
					if w > 1 || w == 1 && r > 0 {
						t.Errorf("unit %d has %d writers and %d readers", u, w, r)
					}
				}
				for u := from; u < to; u++ {
					in[u].Add(-1)
				}
				l.Release(h)
			}
		})
	}
	wg.Wait()
	if l.first != nil || l.last != nil {
		t.Error("holds are left")
	}
}

func BenchmarkRangeLock(b *testing.B) {
	var l Lock
	var next atomic.Int64
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		at := next.Add(1) * 1000
		for pb.Next() {
			l.Release(l.Acquire(at, at+8, false))
		}
	})
}
