package keys

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// A watchedKMS counts the requests to its servers; each request takes a second.
type watchedKMS struct {
	*fakeKMS
	asked atomic.Int32
	ended atomic.Int32
}

func (w *watchedKMS) AskServers(ctx context.Context) {
	w.asked.Add(1)
	select {
	case <-ctx.Done():
	case <-time.After(time.Second):
	}
	w.ended.Add(1)
}

// TestWatch: servers are asked at once and every minute, those of a later provider too, and only
// under Watch. Close waits for the last request.
func TestWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, later := &watchedKMS{fakeKMS: newFakeKMS("first")}, &watchedKMS{fakeKMS: newFakeKMS("later")}
		c := NewCache(discard(), first)
		time.Sleep(time.Hour)
		if n := first.asked.Load(); n != 0 {
			t.Errorf("asked %d times where nobody watches", n)
		}
		c.Watch()
		synctest.Wait()
		if n := first.asked.Load(); n != 1 {
			t.Errorf("asked %d times at first, want once", n)
		}
		if err := c.Add(later); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if n, m := first.asked.Load(), later.asked.Load(); n != 11 || m != 10 {
			t.Errorf("asked %d and %d times in ten minutes, want 11 and 10", n, m)
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		if n, m := first.ended.Load(), later.ended.Load(); n != 11 || m != 10 {
			t.Errorf("%d and %d of them have ended after Close", n, m)
		}
		c.Watch() // too late: nobody is asked any more
		synctest.Wait()
		if n := first.asked.Load(); n != 11 {
			t.Errorf("asked after Close")
		}
	})
}
