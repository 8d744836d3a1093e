package transport

import (
	"time"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// answerInterrupt cancels the request named by an INTERRUPT of n bytes in w.in. Only a request
// that cannot be cancelled yet has an answer, EAGAIN: the worker has read the request and not
// begun, or the answer is on the way. After an EAGAIN the kernel asks again, provided that the
// EAGAIN comes by the request's descriptor. The INTERRUPT may have come by the other descriptor,
// so the EAGAIN goes out on both.
func (l *loop) answerInterrupt(w *worker, n int) {
	unique := w.header().Unique
	if n < interruptInSize {
		return
	}
	named := w.interruptIn().Unique
	if h, found := l.places.interrupt(named); h != nil {
		l.reply(w, h.fd, named, fuse.EINTR, 0)
		h.free()
		return
	} else if found || l.interrupt(named) {
		return
	}
	again := w.answer(unique, fuse.EAGAIN, 0)
	_ = write(l.device.waiting, again) // ENOENT where the request is not
	_ = write(l.device.looking, again)
}

// interrupt cancels the request unique, and reports whether the request is under way.
func (l *loop) interrupt(unique uint64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for w := range l.workers {
		w.mu.Lock()
		found := w.unique == unique && l.cancel(w)
		w.mu.Unlock()
		if found {
			return true
		}
	}
	return false
}

// interruptAll cancels all requests after the end of the connection, again and again until all
// requests have ended, since some may have been read but not begun. l.mu is held.
func (l *loop) interruptAll() {
	for w := range l.workers {
		w.mu.Lock()
		if w.unique != 0 {
			l.cancel(w)
		}
		w.mu.Unlock()
	}
	if len(l.workers) > 0 {
		time.AfterFunc(overdue, func() {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.interruptAll()
		})
	}
}

// cancel cancels w's request under way, once, and reports whether the request is cancelled. w.mu
// is held.
func (l *loop) cancel(w *worker) bool {
	switch {
	case w.interrupted:
	case w.direct:
		close(w.cancel)
		w.interrupted = true
	default: // go-fuse holds the way of cancellation; a cancellation has no answer
		in := fuse.InterruptIn{Unique: w.unique}
		size := unsafe.Sizeof(in)
		in.Length, in.Opcode = uint32(size), opInterrupt
		var out [outHeaderSize]byte
		n, status := l.protocol.HandleRequest([][]byte{unsafe.Slice((*byte)(unsafe.Pointer(&in)), size)}, [][]byte{out[:]})
		w.interrupted = n == 0 && status == fuse.OK
	}
	return w.interrupted
}
