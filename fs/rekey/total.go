package rekey

import (
	"context"
	"sync/atomic"
	"time"
)

// countAhead bounds how long a run waits for its total. Counting reads only names: 50,000 names
// take a tenth of countAhead.
const countAhead = time.Second

// total is the number of files in a pass, counted by their names beside the first pass.
type total struct {
	counted atomic.Int64 // 0 until all are
	stop    context.CancelFunc
	done    chan struct{} // closed when the walk has ended
}

// countFiles counts the files at paths below root. A count that takes longer than countAhead goes
// on until end.
func countFiles(ctx context.Context, root int, paths []string) *total {
	ctx, stop := context.WithCancel(ctx)
	t := &total{stop: stop, done: make(chan struct{})}
	go func() {
		defer close(t.done)
		var n int64
		w := files(root, func(int, string, string) error { n++; return nil })
		w.Broken = func(string, error) error { return nil } // the run reports the same error
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

// files is the number of files, or 0 while the number is unknown.
func (t *total) files() int64 { return t.counted.Load() }

// end stops the count and waits for its goroutine.
func (t *total) end() {
	t.stop()
	<-t.done
}
