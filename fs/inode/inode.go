package inode

import (
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"vmcryptfs/fs/backing"
)

// Inode is an inode known to the kernel, or with an open file. An Inode is a part of its Owner. The
// methods are safe for concurrent use, under the conditions that each names.
type Inode struct {
	table *Table
	Owner Owner         // set by the maker; immutable, as the fields below are:
	ID    uint64        // the kernel's node id
	Order uint64        // the order in which inodes were made
	life  uint64        // Order of the first inode that the kernel knew by ID, unless the kernel has forgotten ID since
	Ino   uint64        // st_ino shown
	Born  backing.Birth // of Ino's inode: the generation that the kernel knows
	Kind  uint32        // S_IFMT bits
	Bound bool          // the file system goes by paths: see package fs, bound.go

	Renames atomic.Uint64 // of a directory: changes of its names, each counted after BACKING made the change

	record // guarded by Table.mu
	access // guarded by descriptors.mu

	// Mu guards which backing file the inode has. Mu is locked before any lock of the Table, by a
	// goroutine that has the inode pinned (Pin).
	Mu sync.RWMutex
}

// Owner is the larger value that an Inode is a part of.
type Owner interface {
	// Forgotten is called once, after the last lookup, handle and name of a child went, and before
	// the descriptors are closed. The inode's Mu is held exclusively, and no lock of the Table.
	Forgotten() error
}

// record is the table's part of an inode.
type record struct {
	key     backing.Key
	birth   backing.Birth // of key's inode
	lookups uint64
	refs    int // open handles, and known names in this directory
	names   []Place
	last    Place // the name lost last, if names is empty
	lost    losses
	gone    bool // released
}

// Place is a name in a directory. The zero Place is no place.
type Place struct {
	Dir  *Inode
	Name string
}

// In is the place of name in the directory n. The empty name stands for n itself, or for a file
// that is to have no name.
func (n *Inode) In(name string) Place { return Place{n, name} }

// FD is the O_PATH descriptor of the backing file of n's names. n is pinned. Mu is held too, unless n
// is a directory, which no conversion replaces.
func (n *Inode) FD() int { return n.fd }

// IsDir reports whether n is a directory.
func (n *Inode) IsDir() bool { return n.Kind == unix.S_IFDIR }

// IsRegular reports whether n is a regular file.
func (n *Inode) IsRegular() bool { return n.Kind == unix.S_IFREG }

// At calls f with n's O_PATH descriptor, which stays open and n's own until f returns. ESTALE: no
// name leads to n any more. At is called without n.Mu; a caller that has Mu, and n pinned, reads FD.
func (n *Inode) At(f func(fd int) error) error {
	if err := n.Pin(); err != nil {
		return err
	}
	defer n.Unpin()
	n.Mu.RLock()
	defer n.Mu.RUnlock()
	return f(n.fd)
}

// Stat is fstat(2) of the backing inode of n's names. Stat is called without n.Mu.
func (n *Inode) Stat(st *unix.Stat_t) error {
	return n.At(func(fd int) error { return unix.Fstat(fd, st) })
}

// close ends the owner and gives up the descriptors. The table calls close once the last lookup,
// handle and name of a child went, without a lock of the table. n.Mu is not held.
func (n *Inode) close() error {
	n.Mu.Lock()
	defer n.Mu.Unlock()
	err := n.Owner.Forgotten()
	n.abandon()
	return err
}
