package inode

import (
	"errors"
	"sync"

	"vmcryptfs/fs/backing"

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
	open  int        // descriptors that inodes have
	idle  idleList   // inodes whose descriptors may be closed, the one used last in front
	spare []int      // taken from inodes, and to be closed without a lock (closeSurplus)

	close func(fd int) error // unix.Close; immutable
}

// access is a node's part in the cache.
type access struct {
	// The set of backing inodes that the inode has, by O_PATH descriptors: that which its names
	// lead to (see at), and others that are kept for it, so that BACKING gives their numbers to no
	// other file. A file that changed its form keeps the first, whose number is shown.
	fd    int   // -1: none is open
	kept  []int // nil for nearly every inode
	holds int   // uses under way
	named bool  // a name is known by which it can be opened again
	inUse bool  // the file is open
	dead  bool  // the node is gone; its descriptor goes with the last hold
	prev  *Inode
	next  *Inode
	idle  bool // in descriptors.idle
}

// idleList is a list through the nodes themselves.
type idleList struct{ first, last *Inode }

func (l *idleList) push(n *Inode) {
	n.prev, n.next = nil, l.first
	if l.first != nil {
		l.first.prev = n
	} else {
		l.last = n
	}
	l.first = n
	n.idle = true
}

func (l *idleList) remove(n *Inode) {
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

// LimitIdle changes how many descriptors may be open, as far as nobody uses them.
func (t *Table) LimitIdle(limit int) {
	d := &t.fds
	d.mu.Lock()
	d.limit = limit
	d.spare = append(d.spare, d.surplus(limit)...)
	d.mu.Unlock()
	d.closeSurplus()
}

// update puts n where it belongs after a change. d.mu is held.
func (d *descriptors) update(n *Inode) {
	may := n.fd >= 0 && n.holds == 0 && n.named && !n.inUse && !n.dead
	switch {
	case may && !n.idle:
		d.idle.push(n)
	case !may && n.idle:
		d.idle.remove(n)
	}
}

// set changes n by f, and closes what is too much then. No other lock of the table is held.
func (d *descriptors) set(n *Inode, f func()) {
	d.change(n, f)
	d.closeSurplus()
}

// change changes n by f. What is too much then is closed by closeSurplus, which the caller calls
// once no lock is held.
func (d *descriptors) change(n *Inode, f func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.open -= n.descriptors()
	f()
	d.open += n.descriptors()
	d.update(n)
	d.spare = append(d.spare, d.surplus(d.limit)...)
}

// closeSurplus closes what change found to be too much. No lock is held.
func (d *descriptors) closeSurplus() {
	d.mu.Lock()
	spare := d.spare
	d.spare = nil
	d.mu.Unlock()
	d.closeAll(spare)
}

// descriptors is how many n has. descriptors.mu is held.
func (a *access) descriptors() (n int) {
	if a.fd >= 0 {
		n++
	}
	return n + len(a.kept)
}

// take takes the descriptors away. descriptors.mu is held.
func (a *access) take(fds []int) []int {
	if a.fd >= 0 {
		fds = append(fds, a.fd)
		a.fd = -1
	}
	fds = append(fds, a.kept...)
	a.kept = nil
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

// Sparing is the table's.
func (n *Inode) Sparing(open func() (int, error)) (int, error) { return n.table.Sparing(open) }

// relieve closes half of the idle descriptors. It tells if there were any.
func (d *descriptors) relieve() bool {
	d.mu.Lock()
	surplus := d.surplus(d.open / 2)
	d.mu.Unlock()
	d.closeAll(surplus)
	return len(surplus) > 0
}

// Sparing opens a file, once more with idle descriptors given up if the process has no more.
func (t *Table) Sparing(open func() (int, error)) (int, error) {
	fd, err := open()
	if errors.Is(err, unix.EMFILE) && t.fds.relieve() {
		return open()
	}
	return fd, err
}

func (d *descriptors) closeAll(fds []int) {
	for _, fd := range fds {
		_ = d.close(fd) // O_PATH: there is nothing that could fail
	}
}

// offer gives fd to n if n has none and is the inode (same). known is whether n is the
// inode that fd stands for: always if n has a descriptor, which keeps its number from
// being given to another, unless it is bound.
func (d *descriptors) offer(n *Inode, fd int, same bool) (taken, known bool) {
	d.change(n, func() {
		switch {
		case n.fd >= 0:
			known = same || !n.Bound
		case same && !n.dead:
			n.fd, taken, known = fd, true, true
		}
	})
	return taken, known
}

// Hold keeps n's descriptor open, and opens it if need be, until letGo. ESTALE if no name
// leads to the inode any more. Neither n.mu nor table.mu is held.
func (n *Inode) Hold() error {
	err := n.pin()
	if err != nil || !n.Bound {
		return err
	}
	if err = n.retake(); err != nil {
		n.LetGo()
	}
	return err
}

// pin is hold of whatever the descriptor leads to now.
func (n *Inode) pin() error {
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
func (n *Inode) holdOpen() (held bool) {
	n.table.fds.set(n, func() {
		if held = n.fd >= 0 && !n.dead; held {
			n.holds++
		}
	})
	return held
}

// holdWith is hold by fd, which it takes over, unless n has got another descriptor.
func (n *Inode) holdWith(fd int) error {
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
func (n *Inode) reopened() bool {
	d := &n.table.fds
	d.mu.Lock()
	defer d.mu.Unlock()
	return n.fd >= 0
}

// LetGo ends a hold.
func (n *Inode) LetGo() {
	var fds []int
	n.table.fds.set(n, func() {
		n.holds--
		if n.dead && n.holds == 0 {
			fds = n.take(nil)
		}
	})
	n.table.fds.closeAll(fds)
}

// SetOpen says if n's file is open, and its descriptor to stay so. n is held.
func (n *Inode) SetOpen(open bool) { n.table.fds.set(n, func() { n.inUse = open }) }

// Succeed makes the backing inode of fd, an O_PATH descriptor that is taken over, the one that n's
// names lead to. The first one is kept, so that BACKING gives the number shown to no other file.
// n is held, and n.mu exclusively.
func (n *Inode) Succeed(fd int, key backing.Key, b backing.Birth) {
	was := -1
	n.table.fds.set(n, func() {
		was, n.fd = n.fd, fd
		if len(n.kept) == 0 {
			n.kept, was = []int{was}, -1
		}
	})
	if was >= 0 {
		unix.Close(was)
	}
	n.leadTo(key, b)
}

// abandon gives up n's descriptors for good, at once or with the last hold.
func (n *Inode) abandon() {
	var fds []int
	n.table.fds.set(n, func() {
		n.dead = true
		if n.holds == 0 {
			fds = n.take(nil)
		}
	})
	n.table.fds.closeAll(fds)
}
