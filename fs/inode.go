package fs

import (
	"golang.org/x/sys/unix"

	"vmcryptfs/fs/backing"
)

// place is what the table knows of a node.
type place struct {
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
	parent *node
	name   string
}

func (n *node) isDir() bool     { return n.kind == unix.S_IFDIR }
func (n *node) isRegular() bool { return n.kind == unix.S_IFREG }

// at calls f with the node's descriptor, which stays open and the node's own meanwhile.
// Not to be called with n.mu held: who holds that, and n (hold), reads n.fd. Of a
// directory, which no conversion replaces, a hold is enough.
func (n *node) at(f func(fd int) error) error {
	if err := n.hold(); err != nil {
		return err
	}
	defer n.letGo()
	n.mu.RLock()
	defer n.mu.RUnlock()
	return f(n.fd)
}

// stat is fstat of the backing inode.
func (n *node) stat(st *unix.Stat_t) error {
	return n.at(func(fd int) error { return unix.Fstat(fd, st) })
}
