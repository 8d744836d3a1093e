package transport

import (
	"container/list"
	"math"
	"sync"
	"sync/atomic"
)

// Limits of requests of one opcode under way at once. Each request has a thread while BACKING
// makes the request wait, and Go ends a program with 10,000 threads. Every opcode has places of
// its own, so a flood of one kind keeps no other kind waiting. All together are about 3,000,
// within systemd's usual TasksMax too.
const (
	mostTransfers = maxBackground // READ, WRITE: none of the kernel's asynchronous requests waits here
	mostOthers    = 64
)

// mostHeld bounds the bytes of requests held for a place. Beyond the bound nothing is read, and
// the kernel queues the rest. (Each reader may bring one request more.)
//
// The kernel's queue is in order, so while nothing is read everybody waits, and a request under
// way may depend on a queued one: InodeNotify waits until the kernel has dropped pages, and such
// a page may be locked for a READ that nobody reads. So the requests counted here must drain by
// themselves, whatever else waits:
//
//   - WRITE: fs lets half of the WRITEs under way wait for pages (fs.mostWaiting), and no
//     more. The other half is answered, so the held WRITEs begin in their turn.
//   - Other requests longer than a page (SETXATTR, SYMLINK, IOCTL, BATCH_FORGET): fs waits for
//     no pages in such a request.
//   - All other requests are not counted, since every OPEN under way may wait for pages. A
//     held request takes less memory than the kernel has for the thread of the request's
//     caller.
const mostHeld = 256 << 20

// places are for requests under way. Requests without a free place are held, and get places in
// the order of their arrival.
type places struct {
	mu     sync.Mutex               // a leaf
	taken  [opcodes]int             // by opcode
	queues [opcodes]list.List       // of *held, by opcode; empty where a place is free
	held   map[uint64]*list.Element // the same by unique
	bytes  atomic.Int64             // counted bytes of held; written under mu
	closed bool                     // the connection is gone: nothing is held any more
}

// most returns how many places an opcode has. INTERRUPT always finds one: an INTERRUPT ends the
// wait of another request.
func most(op uint32) int {
	switch op {
	case opRead, opWrite:
		return mostTransfers
	case opInterrupt:
		return math.MaxInt
	default:
		return mostOthers
	}
}

// take takes a place if one is free.
func (p *places) take(op uint32) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.takeLocked(op)
}

func (p *places) takeLocked(op uint32) bool {
	if p.taken[op] >= most(op) {
		return false
	}
	p.taken[op]++
	return true
}

// hold keeps h until a place is passed on to h. If a place has become free meanwhile, hold takes
// the place and frees h.
func (p *places) hold(h *held) (taken bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if taken = p.takeLocked(h.op); taken || p.closed {
		h.free()
		return taken
	}
	if p.held == nil {
		p.held = make(map[uint64]*list.Element)
	}
	p.held[h.unique] = p.queues[h.op].PushBack(h)
	p.bytes.Add(h.size())
	return false
}

// pass passes on the place of an answered request: to the request returned, or to nobody (nil).
func (p *places) pass(op uint32) *held {
	p.mu.Lock()
	defer p.mu.Unlock()
	if first := p.queues[op].Front(); first != nil {
		return p.remove(first)
	}
	p.taken[op]--
	return nil
}

// remove takes a request out of its queue. p.mu is held.
func (p *places) remove(e *list.Element) *held {
	h := e.Value.(*held)
	p.queues[h.op].Remove(e)
	delete(p.held, h.unique)
	p.bytes.Add(-h.size())
	return h
}

// interrupt reports whether the request unique is held. A request returned is no longer held, and
// the caller must answer the request. A RELEASE stays held: nobody else would close the file.
func (p *places) interrupt(unique uint64) (h *held, found bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	e := p.held[unique]
	if e == nil {
		return nil, false
	}
	if op := e.Value.(*held).op; op == opRelease || op == opReleasedir {
		return nil, true
	}
	return p.remove(e), true
}

// full reports whether nothing more is to be read.
func (p *places) full() bool { return p.bytes.Load() >= mostHeld }

// close drops all held requests: nobody waits for an answer any more.
func (p *places) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for op := range p.queues {
		for e := p.queues[op].Front(); e != nil; e = p.queues[op].Front() {
			p.remove(e).free()
		}
	}
}
