package transport

import (
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// maxParked is how many workers are kept for the next slow requests: more are rarely under way at
// once.
const maxParked = 16

// backlog is how many requests a reader finds waiting, one upon the other, before the reader
// calls for help.
const backlog = 16

// turns decides which worker reads. While the connection lives, one of three holds: a worker is
// reading; a worker with a request expected to be fast will read next; the watch is replacing an
// overdue one.
type turns struct {
	mu       sync.Mutex
	reading  int       // workers looking for the next request or asleep
	sleeping int       // workers asleep in the kernel: at most one, counted in reading
	parked   []*worker // without a turn, the last one to park last
	workers  map[*worker]struct{}
	closed   bool // the connection is gone

	unread    sync.Once               // logs once that a request could not be read
	newWorker func() (*worker, error) // immutable

	most int          // limit of readers and fast together
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

// tryPromote is promote, and reports whether there is a reader now, or none is wanted.
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

// takeTurn makes w, which has answered its request, a reader: at once, or at w's turn. false is
// the end of w.
func (l *loop) takeTurn(w *worker) bool {
	l.mu.Lock()
	// The kernel wakes a sleeping reader for any request: another reader would look in vain.
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

// read waits as the reader w for a request, and reads the request into w.in. The answer goes to
// fd. false is the end of w.
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
		case unix.EINTR, unix.EAGAIN, unix.ENOENT: // ENOENT: the request's caller was killed before the read
		case unix.ENODEV, unix.ECONNABORTED: // the latter where the kernel tells an abort apart
			l.close()
			return 0, 0, false
		default:
			l.readFailed(err)
		}
	}
}

// lookOut looks for a request as long as one is likely to come soon. If no request was there,
// begun is the start of the wait.
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

// reinforce makes another worker read, if w has met a backlog and CPUs are free for another
// worker.
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

// readPause is the pause after a request that could not be read.
const readPause = 10 * time.Millisecond

// readFailed lets a reader continue after an error, such as ENOMEM where the host has no memory
// for the kernel's buffer: the kernel has ended the request by EIO, and the connection lives. An
// end of the reader here would leave a mount kept half alive by another reader, asleep.
func (l *loop) readFailed(err error) {
	l.unread.Do(func() { l.logf("a request could not be read, and is tried for again; said once: %v", err) })
	time.Sleep(readPause)
}

// close ends all workers. A worker with a request ends after the answer; an interrupt makes the
// answer come soon.
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
