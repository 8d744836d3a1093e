package fs

import (
	"errors"
	"sync"

	"golang.org/x/sys/unix"
)

// mostDescriptors bounds the O_PATH descriptors of a mount, whatever the process may have:
// each keeps an inode of BACKING in memory, and to open one again takes microseconds.
const mostDescriptors = 16384

// descriptors is a cache of the nodes' O_PATH descriptors. One that nobody uses may be
// closed, and is opened again by the node's name when it is wanted (table.reopen).
type descriptors struct {
	mu    sync.Mutex // innermost of all: nothing is locked and no I/O done under it
	limit int        // of open, as far as descriptors are idle
	open  int        // descriptors that nodes have, both kinds
	idle  idleList   // nodes whose descriptor may be closed, the one used last in front
}

// access is a node's part in the cache.
type access struct {
	fd    int  // O_PATH, or -1; see node.at
	first int  // O_PATH of the backing inode that node.ino belongs to, or -1: fd's
	holds int  // uses under way
	named bool // a name is known by which it can be opened again
	inUse bool // the file is open
	dead  bool // the node is gone; its descriptor goes with the last hold
	prev  *node
	next  *node
	idle  bool // in descriptors.idle
}

// idleList is a list through the nodes themselves.
type idleList struct{ first, last *node }

func (l *idleList) push(n *node) {
	n.prev, n.next = nil, l.first
	if l.first != nil {
		l.first.prev = n
	} else {
		l.last = n
	}
	l.first = n
	n.idle = true
}

func (l *idleList) remove(n *node) {
	if n.prev != nil {
		n.prev.next = n.next
	} else {
		l.first = n.next
	}
	if n.next != nil {
		n.next.prev = n.prev
	} else {
		l.last = n.prev
	}
	n.prev, n.next = nil, nil
	n.idle = false
}

// share of this process's limit of open files; the rest is for files that are open.
func descriptorLimit() int {
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		return 64
	}
	return int(min(l.Cur/4, mostDescriptors))
}

// update puts n where it belongs after a change. d.mu is held.
func (d *descriptors) update(n *node) {
	may := n.fd >= 0 && n.holds == 0 && n.named && !n.inUse && !n.dead
	switch {
	case may && !n.idle:
		d.idle.push(n)
	case !may && n.idle:
		d.idle.remove(n)
	}
}

// set changes n by f, and closes what is too much then.
func (d *descriptors) set(n *node, f func()) {
	d.mu.Lock()
	d.open -= n.descriptors()
	f()
	d.open += n.descriptors()
	d.update(n)
	surplus := d.surplus(d.limit)
	d.mu.Unlock()
	closeFDs(surplus)
}

// descriptors is how many n has. descriptors.mu is held.
func (a *access) descriptors() (n int) {
	for _, fd := range [...]int{a.fd, a.first} {
		if fd >= 0 {
			n++
		}
	}
	return n
}

// take takes the descriptors away. descriptors.mu is held.
func (a *access) take(fds []int) []int {
	for _, fd := range [...]*int{&a.fd, &a.first} {
		if *fd >= 0 {
			fds = append(fds, *fd)
			*fd = -1
		}
	}
	return fds
}

// surplus takes descriptors from idle nodes, those used longest ago first, until limit
// are open. With the first inode of a converted file its number may go to a new file, and
// both show it then until the kernel forgets one. d.mu is held; the caller closes them
// without it.
func (d *descriptors) surplus(limit int) (fds []int) {
	for d.open > limit && d.idle.last != nil {
		n := d.idle.last
		d.idle.remove(n)
		d.open -= n.descriptors()
		fds = n.take(fds)
	}
	return fds
}

// relieve closes half of the idle descriptors. It tells if there were any.
func (d *descriptors) relieve() bool {
	d.mu.Lock()
	surplus := d.surplus(d.open / 2)
	d.mu.Unlock()
	closeFDs(surplus)
	return len(surplus) > 0
}

// sparing opens a file, once more with idle descriptors given up if the process has no more.
func (d *descriptors) sparing(open func() (int, error)) (int, error) {
	fd, err := open()
	if errors.Is(err, unix.EMFILE) && d.relieve() {
		return open()
	}
	return fd, err
}

func closeFDs(fds []int) {
	for _, fd := range fds {
		unix.Close(fd) // O_PATH: there is nothing that could fail
	}
}

// offer gives fd to n if n has none and is the inode (same). known is whether n is the
// inode that fd stands for: always if n has a descriptor, which keeps its number from
// being given to another, unless it is bound.
func (d *descriptors) offer(n *node, fd int, same bool) (taken, known bool) {
	d.set(n, func() {
		switch {
		case n.fd >= 0:
			known = same || !n.bound
		case same && !n.dead:
			n.fd, taken, known = fd, true, true
		}
	})
	return taken, known
}

// hold keeps n's descriptor open, and opens it if need be, until letGo. ESTALE if no name
// leads to the inode any more. Neither n.mu nor table.mu is held.
func (n *node) hold() error {
	err := n.pin()
	if err != nil || !n.bound {
		return err
	}
	if err = n.retake(); err != nil {
		n.letGo()
	}
	return err
}

// pin is hold of whatever the descriptor leads to now.
func (n *node) pin() error {
	for {
		if n.holdOpen() {
			return nil
		}
		fd, err := n.table.reopen(n)
		if err == nil {
			return n.holdWith(fd)
		}
		if !n.reopened() {
			return err
		}
	}
}

// holdOpen is hold if the descriptor is open.
func (n *node) holdOpen() (held bool) {
	n.table.fds.set(n, func() {
		if held = n.fd >= 0 && !n.dead; held {
			n.holds++
		}
	})
	return held
}

// holdWith is hold by fd, which it takes over, unless n has got another descriptor.
func (n *node) holdWith(fd int) error {
	err := error(unix.ESTALE)
	n.table.fds.set(n, func() {
		if n.dead {
			return
		}
		if n.fd < 0 {
			n.fd, fd = fd, -1
		}
		n.holds++
		err = nil
	})
	if fd >= 0 {
		unix.Close(fd)
	}
	return err
}

// reopened tells if somebody else has opened n meanwhile: by a lookup, or for a
// conversion, which gave n another inode.
func (n *node) reopened() bool {
	d := &n.table.fds
	d.mu.Lock()
	defer d.mu.Unlock()
	return n.fd >= 0
}

// letGo ends a hold.
func (n *node) letGo() {
	var fds []int
	n.table.fds.set(n, func() {
		n.holds--
		if n.dead && n.holds == 0 {
			fds = n.take(nil)
		}
	})
	closeFDs(fds)
}

// keep says if n's file is open, and its descriptor to stay so. n is held.
func (n *node) keep(open bool) { n.table.fds.set(n, func() { n.inUse = open }) }

// succeed gives n, which is held, the descriptor of another backing inode. That of the
// first one is kept, so that BACKING gives the number shown to nobody else.
func (n *node) succeed(fd int) {
	was := -1
	n.table.fds.set(n, func() {
		was, n.fd = n.fd, fd
		if n.first < 0 {
			n.first, was = was, -1
		}
	})
	if was >= 0 {
		unix.Close(was)
	}
}

// abandon gives up n's descriptors for good, at once or with the last hold.
func (n *node) abandon() {
	var fds []int
	n.table.fds.set(n, func() {
		n.dead = true
		if n.holds == 0 {
			fds = n.take(nil)
		}
	})
	closeFDs(fds)
}
