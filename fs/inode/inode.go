package inode

import (
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"vmcryptfs/fs/backing"
)

// Inode is an inode that the kernel knows, or that is open. An Inode is a part of its Owner.
type Inode struct {
	table *Table
	Owner Owner         // set by the maker; immutable, as are these:
	ID    uint64        // the kernel's node id
	Order uint64        // in which inodes were made
	life  uint64        // Order of the first inode that the kernel knew by ID, if the kernel has not forgotten that since
	Ino   uint64        // st_ino shown
	Born  backing.Birth // of Ino's inode: the generation that the kernel knows
	Kind  uint32        // S_IFMT bits
	Bound bool          // its file system goes by paths: see bound.go

	Moves atomic.Uint64 // of a directory: changes of its names, each counted once BACKING did it

	record // guarded by Table.mu
	access // guarded by descriptors.mu

	// Mu guards which backing file the inode has. Mu is locked before any lock of the Table, and by
	// one who holds the inode (Hold).
	Mu sync.RWMutex
}

// Owner is what has an Inode for a part of itself.
type Owner interface {
	// Forgotten is called once, when nobody knows the inode any more and before its descriptors
	// are closed, with the inode's Mu held exclusively and no lock of the Table.
	Forgotten() error
}

// record is what the table knows of an inode.
type record struct {
	key     backing.Key
	birth   backing.Birth // of key's inode
	lookups uint64
	refs    int // open handles, and known names in this directory
	names   []Place
	last    Place // the name lost last, when there is none
	lost    losses
	gone    bool // released
}

// Place is a name in a directory. The zero Place is no place.
type Place struct {
	Dir  *Inode
	Name string
}

// In is a name in the directory n; the empty name stands for n itself, or for a file that is to
// have no name.
func (n *Inode) In(name string) Place { return Place{n, name} }

// FD is the O_PATH descriptor of the backing file that n's names lead to. n is held; and so is mu,
// unless n is a directory, which no conversion replaces.
func (n *Inode) FD() int { return n.fd }

// IsDir reports whether n is a directory.
func (n *Inode) IsDir() bool { return n.Kind == unix.S_IFDIR }

// IsRegular reports whether n is a regular file.
func (n *Inode) IsRegular() bool { return n.Kind == unix.S_IFREG }

// At calls f with n's O_PATH descriptor, which stays open and n's own meanwhile. ESTALE if no name
// leads to n any more. At is not called with n.Mu held: who has Mu, and holds n, reads FD.
func (n *Inode) At(f func(fd int) error) error {
	if err := n.Hold(); err != nil {
		return err
	}
	defer n.LetGo()
	n.Mu.RLock()
	defer n.Mu.RUnlock()
	return f(n.fd)
}

// Stat is fstat(2) of the backing inode.
func (n *Inode) Stat(st *unix.Stat_t) error {
	return n.At(func(fd int) error { return unix.Fstat(fd, st) })
}

// close gives up the descriptors; the table does this when nobody knows the inode.
func (n *Inode) close() error {
	n.Mu.Lock()
	defer n.Mu.Unlock()
	err := n.Owner.Forgotten()
	n.abandon()
	return err
}
