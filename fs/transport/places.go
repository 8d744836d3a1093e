package transport

import (
	"container/list"
	"math"
	"sync"
	"sync/atomic"
)

// How many requests of one opcode are under way at once. Each has a thread while BACKING
// makes it wait, and Go ends a program that has 10,000 threads. Every opcode has places of
// its own, so that a flood of one kind keeps no other kind waiting. All together are about
// 3,000, which systemd's usual TasksMax allows too.
const (
	mostTransfers = maxBackground // READ, WRITE: of what the kernel sends asynchronously none waits here
	mostOthers    = 64
)

// mostHeld bounds the bytes of requests that are held until they have a place. From there on
// nothing is read, and the kernel queues the rest. (Each reader may bring one request more.)
//
// The kernel's queue is in order, so everybody waits while nothing is read, and something
// under way may depend on a request in the queue: InodeNotify waits until the kernel has
// dropped pages, and one of these may be locked for a READ that nobody reads. So what is
// counted here must drain by itself, whatever else waits:
//
//   - WRITE: fs lets half of those under way wait for pages (fs.mostWaiting), and no more.
//     The other half is answered, so that those held begin in their turn.
//   - What else is longer than a page (SETXATTR, SYMLINK, IOCTL, BATCH_FORGET): fs waits for
//     no pages in it.
//   - All others are not counted, since every OPEN under way may wait for pages. They are
//     held in less memory than the kernel has for the thread of each one's caller.
const mostHeld = 256 << 20

// places are for requests under way. Those that find none free are held, and get theirs in
// the order in which they came.
type places struct {
	mu     sync.Mutex               // a leaf
	taken  [opcodes]int             // by opcode
	queues [opcodes]list.List       // of *held, by opcode; empty where a place is free
	held   map[uint64]*list.Element // the same by unique
	bytes  atomic.Int64             // counted of them; written under mu
	closed bool                     // the connection is gone: nothing is held any more
}

// most is how many places an opcode has. INTERRUPT always finds one: it ends the waiting of
// others.
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

// hold keeps h until a place is passed on to it. If one has become free meanwhile, hold takes
// that place, and h goes.
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

// pass passes on the place of a request that was answered: to the one that is returned, or
// to nobody.
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

// interrupt reports whether the request unique is held. It is returned if it is held no
// longer: it has to be answered. A RELEASE stays: nobody would close its file.
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

// close drops what is held: nobody waits for an answer any more.
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
