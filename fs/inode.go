package fs

import (
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"vmcryptfs/fs/backing"
)

// inode is an inode that the kernel knows, or that is open.
type inode struct {
	table *table        // immutable, as are these:
	owner owner         // whose inode it is
	id    uint64        // the kernel's node id
	order uint64        // in which inodes were made
	life  uint64        // order of the first inode that the kernel knew by id, if it has not forgotten it since
	ino   uint64        // st_ino shown
	born  backing.Birth // of ino's inode: the generation that the kernel knows
	kind  uint32        // S_IFMT bits
	bound bool          // its file system goes by paths: see settled.go

	moves atomic.Uint64 // of a directory: changes of its names, each counted once BACKING did it

	record // guarded by table.mu
	access // guarded by table.fds.mu; fd: see at

	mu sync.RWMutex // guards which backing file the inode has
}

// owner is what has an inode for a part of itself.
type owner interface {
	// forgotten is called once, when nobody knows the inode any more and before its descriptors
	// are closed, with the inode's mu held exclusively and no lock of the table.
	forgotten() error
}

// record is what the table knows of an inode.
type record struct {
	key     backing.Key
	birth   backing.Birth // of key's inode
	lookups uint64
	refs    int // open handles, and known names in this directory
	names   []nameKey
	last    nameKey // the name lost last, when there is none
	lost    losses
	gone    bool // released
}

// nameKey is a name in a directory.
type nameKey struct {
	parent *inode
	name   string
}

// in is a name in the directory n.
func (n *inode) in(name string) nameKey { return nameKey{n, name} }

func (n *inode) isDir() bool     { return n.kind == unix.S_IFDIR }
func (n *inode) isRegular() bool { return n.kind == unix.S_IFREG }

// at calls f with the node's descriptor, which stays open and the node's own meanwhile.
// Not to be called with n.mu held: who holds that, and n (hold), reads n.fd. Of a
// directory, which no conversion replaces, a hold is enough.
func (n *inode) at(f func(fd int) error) error {
	if err := n.hold(); err != nil {
		return err
	}
	defer n.letGo()
	n.mu.RLock()
	defer n.mu.RUnlock()
	return f(n.fd)
}

// stat is fstat of the backing inode.
func (n *inode) stat(st *unix.Stat_t) error {
	return n.at(func(fd int) error { return unix.Fstat(fd, st) })
}

// close gives up the descriptors; the table does this when nobody knows the inode.
func (n *inode) close() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	err := n.owner.forgotten()
	n.abandon()
	return err
}
