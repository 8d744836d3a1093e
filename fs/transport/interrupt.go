package transport

import (
	"time"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// answerInterrupt cancels the request that an INTERRUPT of n bytes in w.in names. Only what
// cannot be cancelled yet has an answer, EAGAIN: its worker has read it but not begun it,
// or its answer is on the way. The kernel asks again then, if the EAGAIN comes by the
// descriptor that the request was read from, which the INTERRUPT may not have been.
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

// interrupt cancels the request unique, and reports whether it is under way.
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

// interruptAll cancels all requests, when the connection is gone: again and again until
// they have ended, since some may have been read but not begun. l.mu is held.
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

// cancel cancels what w has under way, once, and reports whether that is done. w.mu is
// held.
func (l *loop) cancel(w *worker) bool {
	switch {
	case w.interrupted:
	case w.direct:
		close(w.cancel)
		w.interrupted = true
	default: // go-fuse holds the way to cancel it, and answers nothing when it has
		in := fuse.InterruptIn{Unique: w.unique}
		size := unsafe.Sizeof(in)
		in.Length, in.Opcode = uint32(size), opInterrupt
		var out [outHeaderSize]byte
		n, status := l.protocol.HandleRequest([][]byte{unsafe.Slice((*byte)(unsafe.Pointer(&in)), size)}, [][]byte{out[:]})
		w.interrupted = n == 0 && status == fuse.OK
	}
	return w.interrupted
}
