package transport

import (
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// maxParked is how many workers are kept for the next slow requests: more than that is
// rarely under way at once.
const maxParked = 16

// backlog is after how many requests that were there already, one upon the other, a reader
// calls for help.
const backlog = 16

// turns is who reads. While the connection lives there is a reader, or a worker whose
// request is thought fast, which becomes one after it, or an overdue one, which the
// watch replaces.
type turns struct {
	mu       sync.Mutex
	reading  int       // workers that are after the next request: looking for it or asleep
	sleeping int       // those of them that are asleep in the kernel: at most one
	parked   []*worker // without a turn, the last one to park last
	workers  map[*worker]struct{}
	closed   bool // the connection is gone

	unread    sync.Once               // tells that a request could not be read
	newWorker func() (*worker, error) // immutable

	most int          // readers, and workers with a request that is thought fast, at once
	fast atomic.Int32 // the latter
}

// add makes w a new reader. l.mu is held.
func (l *loop) add(w *worker) {
	l.workers[w] = struct{}{}
	l.reading++
	l.running.Go(func() { l.work(w) })
}

func (l *loop) retire(w *worker) {
	l.mu.Lock()
	delete(l.workers, w)
	l.mu.Unlock()
	w.free()
}

// promote makes another worker the reader if there is none. For want of memory there may
// be none now: the watch tries again.
func (l *loop) promote() {
	if !l.tryPromote() {
		l.watch.arm()
	}
}

// tryPromote is promote that reports whether there is a reader now, or none is wanted.
func (l *loop) tryPromote() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.reading > 0 || l.closed || l.places.full() {
		return true
	}
	if last := len(l.parked) - 1; last >= 0 {
		w := l.parked[last]
		l.parked = l.parked[:last]
		l.reading++
		w.wake <- struct{}{}
		return true
	}
	w, err := l.newWorker()
	if err != nil {
		return false
	}
	l.add(w)
	return true
}

// takeTurn makes w, which has answered its request, a reader, at once or when it is its
// turn. False is the end of w.
func (l *loop) takeTurn(w *worker) bool {
	l.mu.Lock()
	// The kernel wakes one that sleeps for any request: looking would be in vain.
	if l.sleeping > 0 || l.places.full() {
		return l.park(w)
	}
	l.reading++
	defer l.mu.Unlock()
	return !l.closed
}

// park waits until w is a reader again. False is the end of w. l.mu is held, and is not on
// return.
func (l *loop) park(w *worker) bool {
	if l.closed || len(l.parked) == maxParked {
		l.mu.Unlock()
		return false
	}
	l.parked = append(l.parked, w)
	l.mu.Unlock()
	<-w.wake
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.closed
}

// read waits for a request, as the reader w, and reads it into w.in. It is to be answered
// on fd. False is the end of w.
func (l *loop) read(w *worker) (n, fd int, ok bool) {
	for {
		fd = l.device.looking
		n, begun, err := l.lookOut(w)
		if err == unix.EAGAIN {
			l.mu.Lock()
			if l.reading > 1 {
				l.reading--
				if !l.park(w) {
					return 0, 0, false
				}
				continue
			}
			l.sleeping++
			l.mu.Unlock()
			fd = l.device.waiting
			n, err = l.sleep(w)
			l.window.waited(time.Since(begun))
		}
		switch err {
		case nil:
			l.mu.Lock()
			l.reading--
			l.mu.Unlock()
			return n, fd, true
		case unix.EINTR, unix.EAGAIN, unix.ENOENT: // ENOENT: its caller was killed before it was read
		case unix.ENODEV, unix.ECONNABORTED: // the latter where the kernel tells an abort apart
			l.close()
			return 0, 0, false
		default:
			l.readFailed(err)
		}
	}
}

// lookOut looks for a request as long as it is likely that one comes soon. begun is since
// when one was waited for, if none was there.
func (l *loop) lookOut(w *worker) (n int, begun time.Time, err error) {
	n, err = l.device.look(w.in)
	if err != unix.EAGAIN {
		w.run++
		return n, begun, err
	}
	w.run = 0
	begun = time.Now()
	for length := l.window.length(); err == unix.EAGAIN && time.Since(begun) < length; {
		for i := 0; err == unix.EAGAIN && i < 4; i++ {
			n, err = l.device.look(w.in)
		}
	}
	return n, begun, err
}

// reinforce makes another worker read, if w has met a backlog and there are CPUs for it.
func (l *loop) reinforce(w *worker) {
	if w.run >= backlog && int(l.fast.Load()) < l.most {
		w.run = 0
		l.promote()
	}
}

func (l *loop) sleep(w *worker) (int, error) {
	n, err := l.device.wait(w.in)
	l.mu.Lock()
	l.sleeping--
	l.mu.Unlock()
	return n, err
}

// readPause is between attempts to read what could not be read.
const readPause = 10 * time.Millisecond

// readFailed is for a reader that goes on after an error, such as ENOMEM where the host has
// no memory for its buffer: the kernel has ended that request by EIO, and the connection
// lives. To end here would leave a mount that another reader, asleep, keeps half alive.
func (l *loop) readFailed(err error) {
	l.unread.Do(func() { l.logf("a request could not be read, and is tried for again; said once: %v", err) })
	time.Sleep(readPause)
}

// close ends all workers: those with a request when it is answered, which an interrupt
// makes soon.
func (l *loop) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	l.closed = true
	for _, w := range l.parked {
		w.wake <- struct{}{}
	}
	l.parked = nil
	l.places.close()
	l.interruptAll()
}
