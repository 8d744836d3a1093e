package transport

import (
	"fmt"
	"runtime/debug"
	"time"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// serve answers the request of n bytes in w.in, read from fd.
func (l *loop) serve(w *worker, fd, n int) {
	if n < inHeaderSize || int(w.header().Length) != n {
		l.logf("request of the kernel is %d bytes long and says otherwise", n)
		return
	}
	op := w.opcode()
	if !l.enter(w, fd, n) {
		return
	}
	l.begin(w, fd, n)
	for h := l.places.pass(op); h != nil; h = l.places.pass(op) {
		n = h.moveTo(w)
		l.promote() // also where nobody has read because of the held requests
		l.dispatch(w, h.fd, n)
	}
}

// enter takes a place for the request of n bytes in w.in. false: the request is held, and another
// worker answers the request once there is a place.
func (l *loop) enter(w *worker, fd, n int) bool {
	for !l.places.take(w.opcode()) {
		h, err := newHeld(w, fd, n)
		if err == nil {
			return l.places.hold(h)
		}
		l.watch.arm() // all requests under way may hang: then another worker reads
		l.readFailed(err)
	}
	return true
}

// begin answers the request in w.in, which has a place: as the reader, or after another worker
// has become the reader.
func (l *loop) begin(w *worker, fd, n int) {
	if l.mayWait(w, n) {
		l.promote()
		l.dispatch(w, fd, n)
		return
	}
	l.fast.Add(1)
	defer l.fast.Add(-1)
	l.watch.arm()
	l.reinforce(w)
	l.dispatch(w, fd, n)
}

func (l *loop) dispatch(w *worker, fd, n int) {
	begun := time.Now()
	switch w.header().Opcode {
	case opRead:
		l.answerRead(w, fd, n)
	case opWrite:
		l.answerWrite(w, fd, n)
	case opInterrupt:
		l.answerInterrupt(w, n)
		return
	default:
		l.hand(w, fd, n)
		return
	}
	l.pace.took(time.Since(begun))
}

// mayWait reports whether the request may take much longer than waking another thread.
func (l *loop) mayWait(w *worker, n int) bool {
	switch w.header().Opcode {
	case opForget, opBatchForget, opInterrupt:
		return false
	case opLookup, opGetattr, opStatfs, opGetxattr, opRead:
		return l.pace.slow()
	case opWrite:
		return l.pace.slow() || n < writeInSize || w.writeIn().Flags&unix.O_DSYNC != 0
	default:
		return true
	}
}

func (l *loop) answerRead(w *worker, fd, n int) {
	if n < readInSize || w.readIn().Size > maxWrite {
		l.reply(w, fd, w.header().Unique, fuse.EIO, 0)
		return
	}
	in := w.readIn()
	payload := w.out[outHeaderSize : outHeaderSize+int(in.Size)]
	w.begin(in.Unique, true)
	size, status := l.rawRead(w.cancel, in, payload)
	w.end()
	l.reply(w, fd, in.Unique, status, size)
}

func (l *loop) rawRead(cancel <-chan struct{}, in *fuse.ReadIn, payload []byte) (size int, status fuse.Status) {
	defer l.contain(&status)
	result, status := l.raw.Read(cancel, in, payload)
	if result == nil {
		return len(payload), status
	}
	defer result.Done()
	b, status := result.Bytes(payload)
	return copy(payload, b), status // a copy onto itself, if the answer is in payload already
}

func (l *loop) answerWrite(w *worker, fd, n int) {
	if n < writeInSize || int(w.writeIn().Size) != n-writeInSize {
		l.reply(w, fd, w.header().Unique, fuse.EIO, 0)
		return
	}
	in := w.writeIn()
	w.begin(in.Unique, true)
	written, status := l.rawWrite(w.cancel, in, w.in[writeInSize:n])
	w.end()
	*(*fuse.WriteOut)(unsafe.Pointer(&w.out[outHeaderSize])) = fuse.WriteOut{Size: written}
	l.reply(w, fd, in.Unique, status, int(unsafe.Sizeof(fuse.WriteOut{})))
}

func (l *loop) rawWrite(cancel <-chan struct{}, in *fuse.WriteIn, payload []byte) (n uint32, status fuse.Status) {
	defer l.contain(&status)
	return l.raw.Write(cancel, in, payload)
}

// contain makes a panic an error: one damaged file must not take the datastore down.
func (l *loop) contain(status *fuse.Status) {
	if r := recover(); r != nil {
		l.logf("panic: %v\n%s", r, debug.Stack())
		*status = fuse.EIO
	}
}

// hand leaves a request to go-fuse.
func (l *loop) hand(w *worker, fd, n int) {
	unique := w.header().Unique
	w.begin(unique, false)
	w.inVector[0], w.outVector[0] = w.in[:n], w.out
	size, status := l.protocol.HandleRequest(w.inVector[:], w.outVector[:])
	w.end()
	switch {
	case status != fuse.OK: // go-fuse has no answer for an unreadable request
		l.reply(w, fd, unique, status, 0)
	case size > 0:
		l.send(fd, w.out[:size])
	}
}

func (l *loop) reply(w *worker, fd int, unique uint64, status fuse.Status, n int) {
	l.send(fd, w.answer(unique, status, n))
}

// send writes an answer. The usual errors concern nobody: the caller was killed (ENOENT), or the
// mount is gone (ENODEV). Any other error means that the kernel does not accept the answer, such
// as an error number that a BACKING should not have let out (524 of NFS): without another answer,
// EIO, the caller would wait for ever.
func (l *loop) send(fd int, answer []byte) {
	err := write(fd, answer)
	if err == nil || err == unix.ENOENT || err == unix.ENODEV {
		return
	}
	h := (*fuse.OutHeader)(unsafe.Pointer(&answer[0]))
	l.logf("answer of %d bytes, status %d: %v", len(answer), h.Status, err)
	h.Length, h.Status = uint32(outHeaderSize), -int32(fuse.EIO)
	_ = write(fd, answer[:outHeaderSize]) // ENOENT if the kernel has ended the request
}

func (l *loop) logf(format string, args ...any) {
	if l.o.Log != nil {
		l.o.Log.Error("FUSE: " + fmt.Sprintf(format, args...))
	}
}
