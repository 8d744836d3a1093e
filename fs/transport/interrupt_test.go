package transport

import (
	"bytes"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// notBegun makes the request look read and not begun by its worker, until begin is called.
func (r *rig) notBegun(unique uint64) (begin func()) {
	r.loop.mu.Lock()
	defer r.loop.mu.Unlock()
	for w := range r.loop.workers {
		w.mu.Lock()
		found := w.unique == unique
		w.mu.Unlock()
		if found {
			w.begin(0, false)
			return func() { w.begin(unique, true) }
		}
	}
	r.t.Errorf("no worker has request %d under way", unique)
	return func() {}
}

// TestInterruptBeforeBegin: a request interrupted between reading and beginning is interrupted at
// the beginning, whichever descriptors the request and the INTERRUPT come by.
func TestInterruptBeforeBegin(t *testing.T) {
	const always = 2 * time.Second // a window: the reader does not sleep meanwhile
	for _, c := range []struct {
		name              string
		window, afterward time.Duration
	}{
		{"read while looking, interrupted while waiting", always, 0},
		{"read while waiting, interrupted while looking", 0, always},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newOneFile()
			r := newRig(t, f)
			hung, cancelled := make(chan func(), 1), make(chan struct{})
			f.set(func() {
				f.onRead = func(cancel <-chan struct{}, in *fuse.ReadIn) fuse.Status {
					if in.Offset != 0 {
						r.loop.window.ns.Store(int64(c.window))
						return fuse.OK
					}
					r.loop.window.ns.Store(int64(c.afterward))
					hung <- r.notBegun(in.Unique)
					<-cancel
					close(cancelled)
					return fuse.EINTR
				}
			})
			defer r.loop.window.ns.Store(0)
			t.Cleanup(func() {
				if t.Failed() {
					abort(t, r.dir)
				}
			})
			somebodyReads := func() bool { return r.loop.reading > 0 }
			if _, err := r.file.ReadAt(make([]byte, 512), 4096); err != nil {
				t.Fatal(err)
			}
			p, err := os.StartProcess("/bin/sh", []string{"sh", "-c", "exec head -c 512 " + r.dir + "/f"}, &os.ProcAttr{})
			if err != nil {
				t.Fatal(err)
			}
			begin := sync.OnceFunc(<-hung)
			defer begin()
			r.until("another reads on", somebodyReads)
			before := r.loop.watch.began.Load()
			if err := p.Signal(unix.SIGTERM); err != nil {
				t.Error(err)
			}
			r.until("the caller has asked for the interrupt", func() bool { return uninterruptible(t, p.Pid) })
			// The second one comes after the answer to the first. (No other request would be read
			// meanwhile: an INTERRUPT goes before all.)
			r.until("it is asked for again", func() bool { return r.loop.watch.began.Load() >= before+2 })
			begin()
			select {
			case <-cancelled:
			case <-time.After(30 * time.Second):
				t.Error("the interrupt was lost")
				return
			}
			if _, err := p.Wait(); err != nil {
				t.Error(err)
			}
		})
	}
}

// uninterruptible reports whether a process waits in the kernel beyond the reach of signals.
func uninterruptible(t *testing.T, pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Error(err)
		return true
	}
	_, state, _ := bytes.Cut(b, []byte(") "))
	return state[0] == 'D'
}

// TestAbortBeforeBegin: a request read and not begun at the end of the connection is cancelled
// too.
func TestAbortBeforeBegin(t *testing.T) {
	f := newOneFile()
	r := newRig(t, f)
	hung := make(chan func(), 1)
	f.set(func() {
		f.onRead = func(cancel <-chan struct{}, in *fuse.ReadIn) fuse.Status {
			hung <- r.notBegun(in.Unique)
			<-cancel
			return fuse.EINTR
		}
	})
	ended := make(chan error, 1)
	go func() {
		_, err := r.file.ReadAt(make([]byte, 512), 0)
		ended <- err
	}()
	begin := <-hung
	abort(t, r.dir)
	r.until("the loop sees the end", func() bool { return r.loop.closed })
	begin()
	if err := <-ended; err == nil {
		t.Error("a read of an aborted connection succeeded")
	}
	r.loop.Wait()
}
