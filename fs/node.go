package fs

import (
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"vmcryptfs/fs/backing"
	"vmcryptfs/fs/content"
	"vmcryptfs/fs/cryptfile"
	"vmcryptfs/fs/inode"
	"vmcryptfs/fs/move"
)

// node is an inode with the mount's knowledge of its file.
type node struct {
	inode.Inode

	mode    atomic.Uint32 // permissions as last seen: a write checks them for suid to clear
	written atomic.Bool   // written through this mount, since the stamp was taken
	// unsettled: written since the content was last judged to be a VMDK descriptor or none.
	unsettled atomic.Bool
	settling  sync.Mutex // held by settle, under no other lock

	pages pages
	// moving is the open file's Pair, if it moves; nil otherwise. Set with Mu held exclusively.
	moving atomic.Pointer[move.Pair]

	// Guarded by Mu; order: see the package comment.
	file       *content.File // nil: not open
	generation uint64        // grows when the backing file, or the judgement of its names, is another
	// unheard is a lost write, from before the file was closed, of which no caller was told.
	unheard *cryptfile.SyncFailure
	reserve *reserve // of the backing file's file system, while file is open

	formMu  sync.Mutex
	seen    seenForm
	since   backing.Stamp // stamp of the backing file when the kernel's cached pages began to be right
	noticed backing.Stamp // stamp of the foreign change for which pages were last dropped
}

// newNode makes the node of an inode with the status st.
func newNode(st *unix.Stat_t) *inode.Inode {
	n := new(node)
	n.Owner = n
	n.mode.Store(st.Mode)
	return &n.Inode
}

// nodeOf is the node of an inode; of nil, nil.
func nodeOf(i *inode.Inode) *node {
	if i == nil {
		return nil
	}
	return i.Owner.(*node)
}

// node is the node with an id, or nil.
func (f *FS) node(id uint64) *node { return nodeOf(f.table.Get(id)) }

// root is the node of BACKING itself.
func (f *FS) root() *node { return nodeOf(f.table.Root()) }

// called is the node that was last known by a name, or nil.
func (f *FS) called(at inode.Place) *node { return nodeOf(f.table.Called(at)) }

// Forgotten closes the node's file, as inode.Owner says.
func (n *node) Forgotten() error {
	if n.file == nil {
		return nil
	}
	err := n.file.Close()
	n.setFile(nil)
	return err
}

// setFile makes file n's open file; nil: n is closed. n.Mu is held exclusively.
func (n *node) setFile(file *content.File) {
	n.file = file
	if file == nil {
		n.moving.Store(nil)
		return
	}
	n.moving.Store(file.Pair())
}

// wantDirect is WantDirect of n's open file, for a handle.
func (n *node) wantDirect(direct bool, change int64) {
	if !direct {
		return
	}
	n.Mu.RLock()
	defer n.Mu.RUnlock()
	if n.file != nil {
		n.file.WantDirect(change)
	}
}

// syncFailure is SyncFailure of n's open file.
func (n *node) syncFailure() *cryptfile.SyncFailure {
	n.Mu.RLock()
	defer n.Mu.RUnlock()
	if n.file == nil {
		return nil
	}
	return n.file.SyncFailure()
}
