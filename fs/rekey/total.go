package rekey

import (
	"context"
	"sync/atomic"
	"time"
)

// countAhead is how long a run waits for its total: names alone are read, and 50,000 of them
// take a tenth of that.
const countAhead = time.Second

// total is how many files a pass looks at, counted by their names beside the first pass.
type total struct {
	counted atomic.Int64 // 0 until all are
	stop    context.CancelFunc
	done    chan struct{} // closed when the walk has ended
}

// countFiles counts what is at paths below root; what takes longer than countAhead goes on
// until end.
func countFiles(ctx context.Context, root int, paths []string) *total {
	ctx, stop := context.WithCancel(ctx)
	t := &total{stop: stop, done: make(chan struct{})}
	go func() {
		defer close(t.done)
		var n int64
		w := files(root, func(int, string, string) error { n++; return nil })
		w.Broken = func(string, error) error { return nil } // the run tells of it
		for _, rel := range paths {
			_ = w.From(ctx, rel) // the same
		}
		if ctx.Err() == nil {
			t.counted.Store(n)
		}
	}()
	select {
	case <-t.done:
	case <-time.After(countAhead):
	}
	return t
}

// files is the number, 0 while it is not known.
func (t *total) files() int64 { return t.counted.Load() }

// end stops the count and waits for it.
func (t *total) end() {
	t.stop()
	<-t.done
}
