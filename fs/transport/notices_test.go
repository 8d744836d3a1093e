package transport

import (
	"sync"
	"sync/atomic"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// slowNotices is a Notifier that counts its callers, and keeps them inside.
type slowNotices struct {
	inside atomic.Int32
	most   atomic.Int32
	full   chan struct{}
	leave  chan struct{}
}

func (n *slowNotices) InodeNotify(_ uint64, off, _ int64) fuse.Status {
	if off < 0 {
		return fuse.OK
	}
	inside := n.inside.Add(1)
	defer n.inside.Add(-1)
	for old := n.most.Load(); inside > old && !n.most.CompareAndSwap(old, inside); old = n.most.Load() {
	}
	if inside == mostNotices {
		select {
		case n.full <- struct{}{}:
		default:
		}
	}
	<-n.leave
	return fuse.OK
}

// TestNoticesAreBounded: the bound holds for any number of files with pages to wait for.
func TestNoticesAreBounded(t *testing.T) {
	slow := &slowNotices{full: make(chan struct{}, 1), leave: make(chan struct{})}
	n := newNotices(slow)
	var running sync.WaitGroup
	for node := range uint64(3 * mostNotices) {
		running.Go(func() { n.InodeNotify(node, 0, 0) })
	}
	<-slow.full
	if s := n.InodeNotify(1, -1, 0); s != fuse.OK { // waits for no page
		t.Error(s)
	}
	for range 3 * mostNotices {
		slow.leave <- struct{}{}
	}
	running.Wait()
	if most := slow.most.Load(); most != mostNotices {
		t.Errorf("%d notices were under way at once, want %d", most, mostNotices)
	}
}
