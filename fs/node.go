package fs

import (
	"sync"
	"sync/atomic"

	"vmcryptfs/fs/backing"
	"vmcryptfs/fs/cryptfile"
)

// node is an inode that the kernel knows, or that is open.
type node struct {
	table *table        // immutable, as are these:
	id    uint64        // the kernel's node id
	order uint64        // in which nodes were made
	life  uint64        // order of the first node that the kernel knew by id, if it has not forgotten it since
	ino   uint64        // st_ino shown
	born  backing.Birth // of ino's inode: the generation that the kernel knows
	kind  uint32        // S_IFMT bits
	bound bool          // its file system goes by paths: see bound.go

	mode    atomic.Uint32 // permissions as last seen: tells a write if there is suid to clear
	written atomic.Bool   // through this mount, since the stamp was taken
	// unsettled: written since it was last looked at whether it is a VMDK descriptor.
	unsettled atomic.Bool

	pages pages
	moves atomic.Uint64 // of a directory: changes of its names, each counted once BACKING did it

	place  // guarded by table.mu
	access // guarded by table.fds.mu; fd: see at

	mu         sync.RWMutex // order: see the package comment
	file       *openFile    // nil: not open
	generation uint64       // grows when fd or file is replaced
	// unheard is what was lost before the file was closed, with nobody told.
	unheard *cryptfile.SyncFailure

	formMu  sync.Mutex
	seen    seenForm
	since   backing.Stamp // the backing file when the kernel's cached pages began to be right
	noticed backing.Stamp // the change by others for which pages were last dropped
}

// close gives up the descriptors; the table does this when nobody knows the node.
func (n *node) close() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	var err error
	if n.file != nil {
		err = n.file.Close()
		n.file = nil
	}
	n.abandon()
	return err
}
