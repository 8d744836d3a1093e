package inode

import (
	"errors"
	"sync"
	"sync/atomic"

	"vmcryptfs/fs/backing"

	"golang.org/x/sys/unix"
)

// mostDescriptors bounds the idle O_PATH descriptors of a mount, whatever the limit of the process:
// each descriptor keeps an inode of BACKING in memory, and to open one again takes microseconds.
const mostDescriptors = 16384

// descriptors is a cache of the inodes' O_PATH descriptors. A descriptor that nobody uses may be
// closed; Pin opens the inode again by name (Table.reopen).
type descriptors struct {
	mu    sync.Mutex  // innermost of all: nothing is locked and no I/O done under mu
	limit int         // of open; only idle descriptors are closed to keep the limit
	open  int         // descriptors that inodes have
	idle  idleList    // inodes whose descriptors may be closed, the one used last in front
	spare []int       // taken from inodes; closeSurplus closes them without a lock of the table
	some  atomic.Bool // spare holds some
	busy  bool        // a goroutine closes spare

	closing sync.WaitGroup // that goroutine

	close func(fd int) error // unix.Close; immutable
}

// access is an inode's part in the cache.
type access struct {
	// fd and kept are O_PATH descriptors of the backing inodes that the inode has. The inode's
	// names lead to fd's (see At). The kept ones are open only so that BACKING gives their numbers
	// to no other file: a file that changed its form keeps its first backing inode, whose number is
	// shown.
	fd    int   // -1: none is open
	kept  []int // nil for nearly every inode
	pins  int   // uses under way (Pin)
	named bool  // a name is known by which the inode can be opened again
	inUse bool  // the file is open
	dead  bool  // the inode is gone; the descriptor goes with the last pin
	prev  *Inode
	next  *Inode
	idle  bool // in descriptors.idle
}

// idleList is a list through the inodes themselves.
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

// descriptorLimit is the share of the process's limit of open files that idle descriptors may take;
// the rest is for open files.
func descriptorLimit() int {
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		return 64
	}
	return int(min(l.Cur/4, mostDescriptors))
}

// LimitIdle sets the number of descriptors above which idle ones are closed, and closes those that
// are too many now.
func (t *Table) LimitIdle(limit int) {
	d := &t.fds
	d.mu.Lock()
	d.limit = limit
	surplus := d.surplus(limit)
	d.mu.Unlock()
	d.closeAll(surplus)
}

// update puts n into the idle list, or takes n out, after a change. d.mu is held.
func (d *descriptors) update(n *Inode) {
	may := n.fd >= 0 && n.pins == 0 && n.named && !n.inUse && !n.dead
	switch {
	case may && !n.idle:
		d.idle.push(n)
	case !may && n.idle:
		d.idle.remove(n)
	}
}

// set changes n by f, and closes idle descriptors above the limit. No lock of the table is held.
func (d *descriptors) set(n *Inode, f func()) {
	d.change(n, f)
	d.closeSurplus()
}

// change changes n by f, and takes idle descriptors above the limit from their inodes. The caller
// calls closeSurplus once no lock of the table is held.
func (d *descriptors) change(n *Inode, f func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.open -= n.descriptors()
	f()
	d.open += n.descriptors()
	d.update(n)
	if d.open > d.limit {
		d.spare = append(d.spare, d.surplus(d.limit)...)
		d.some.Store(len(d.spare) > 0)
	}
}

// closeSurplus has the descriptors closed that change took away, by a goroutine that ends when none
// is left: the caller may have FS.names or the Mu of an inode, and the last close of a removed file
// takes as long as the file is large.
func (d *descriptors) closeSurplus() {
	if !d.some.Load() { // as nearly always
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.busy || len(d.spare) == 0 {
		return
	}
	d.busy = true
	d.closing.Go(func() {
		for spare := d.nextSpare(); spare != nil; spare = d.nextSpare() {
			d.closeAll(spare)
		}
	})
}

// nextSpare takes what is to be closed; nil: nothing is left, and the goroutine ends.
func (d *descriptors) nextSpare() []int {
	d.mu.Lock()
	defer d.mu.Unlock()
	spare := d.spare
	d.spare = nil
	d.some.Store(false)
	d.busy = len(spare) > 0
	if !d.busy {
		return nil
	}
	return spare
}

// descriptors is the number of n's open descriptors. descriptors.mu is held.
func (a *access) descriptors() (n int) {
	if a.fd >= 0 {
		n++
	}
	return n + len(a.kept)
}

// take takes n's descriptors away, appended to fds. descriptors.mu is held.
func (a *access) take(fds []int) []int {
	if a.fd >= 0 {
		fds = append(fds, a.fd)
		a.fd = -1
	}
	fds = append(fds, a.kept...)
	a.kept = nil
	return fds
}

// surplus takes descriptors from idle inodes, those used longest ago first, until at most limit are
// open. The caller closes the descriptors after unlocking d.mu, which is held here. After a
// converted file loses the kept descriptor, BACKING may give the first number to a new file; until
// the kernel forgets one of the two, both show that number.
func (d *descriptors) surplus(limit int) (fds []int) {
	for d.open > limit && d.idle.last != nil {
		n := d.idle.last
		d.idle.remove(n)
		d.open -= n.descriptors()
		fds = n.take(fds)
	}
	return fds
}

// Sparing is Table.Sparing of n's table.
func (n *Inode) Sparing(open func() (int, error)) (int, error) { return n.table.Sparing(open) }

// relieve closes half of the open descriptors, as far as they are idle, and reports whether any was
// closed. No lock of the table is held.
func (d *descriptors) relieve() bool {
	d.mu.Lock()
	surplus := d.surplus(d.open / 2)
	d.mu.Unlock()
	d.closeAll(surplus)
	return len(surplus) > 0
}

// Sparing calls open. After EMFILE, where the process may have no more descriptors, Sparing closes
// idle ones and calls open once more. No lock of the table is held.
func (t *Table) Sparing(open func() (int, error)) (int, error) {
	fd, err := open()
	if errors.Is(err, unix.EMFILE) && t.fds.relieve() {
		return open()
	}
	return fd, err
}

func (d *descriptors) closeAll(fds []int) {
	for _, fd := range fds {
		_ = d.close(fd) // O_PATH: nothing can fail
	}
}

// offer gives fd to n if n has no descriptor and fd is n's inode (same). known reports whether fd
// leads to n's inode. An inode with a descriptor keeps its number, so known is true then; of a
// bound inode, known is same. Table.mu may be held.
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

// Pin keeps n's descriptor open, having opened the descriptor if necessary, until Unpin. ESTALE:
// no name leads to the inode any more. Neither n.Mu nor a lock of the table is held.
func (n *Inode) Pin() error {
	err := n.pinAny()
	if err != nil || !n.Bound {
		return err
	}
	if err = n.retake(); err != nil {
		n.Unpin()
	}
	return err
}

// pinAny is Pin without the check where the descriptor leads.
func (n *Inode) pinAny() error {
	for {
		if n.pinOpen() {
			return nil
		}
		fd, err := n.table.reopen(n)
		if err == nil {
			return n.pinWith(fd)
		}
		if !n.reopened() {
			return err
		}
	}
}

// pinOpen is pinAny if the descriptor is open; pinned is false otherwise.
func (n *Inode) pinOpen() (pinned bool) {
	n.table.fds.set(n, func() {
		if pinned = n.fd >= 0 && !n.dead; pinned {
			n.pins++
		}
	})
	return pinned
}

// pinWith is pinAny with fd, or with a descriptor that n has got meanwhile. pinWith takes over fd.
func (n *Inode) pinWith(fd int) error {
	err := error(unix.ESTALE)
	n.table.fds.set(n, func() {
		if n.dead {
			return
		}
		if n.fd < 0 {
			n.fd, fd = fd, -1
		}
		n.pins++
		err = nil
	})
	if fd >= 0 {
		unix.Close(fd)
	}
	return err
}

// reopened reports whether another goroutine has opened n meanwhile: for a lookup, or for a
// conversion, which gave n another inode. An inode that is gone is not opened again; its descriptor
// stays open for the pins under way.
func (n *Inode) reopened() bool {
	d := &n.table.fds
	d.mu.Lock()
	defer d.mu.Unlock()
	return n.fd >= 0 && !n.dead
}

// Unpin ends a Pin.
func (n *Inode) Unpin() {
	var fds []int
	n.table.fds.set(n, func() {
		n.pins--
		if n.dead && n.pins == 0 {
			fds = n.take(nil)
		}
	})
	n.table.fds.closeAll(fds)
}

// SetOpen notes whether n's file is open; the descriptor of an open file stays open. n is pinned.
func (n *Inode) SetOpen(open bool) { n.table.fds.set(n, func() { n.inUse = open }) }

// Succeed makes the backing inode of fd, an O_PATH descriptor that Succeed takes over, the one of
// n's names. The first backing inode is kept, so that BACKING gives the number shown to no other
// file. n is pinned, and n.Mu exclusively.
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

// abandon gives up n's descriptors for good, at once or with the last pin.
func (n *Inode) abandon() {
	var fds []int
	n.table.fds.set(n, func() {
		n.dead = true
		if n.pins == 0 {
			fds = n.take(nil)
		}
	})
	n.table.fds.closeAll(fds)
}
