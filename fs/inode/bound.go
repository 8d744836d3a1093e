package inode

import (
	"errors"

	"golang.org/x/sys/unix"

	"vmcryptfs/fs/backing"
)

// LearnDevice notes whether the file system dev, on which fd is open, goes by paths. A file system
// mounted below BACKING was not tested; one of FUSE's is taken for one that goes by paths. No lock
// of the table is held.
func (t *Table) LearnDevice(fd int, dev uint64) {
	if dev == t.device {
		return
	}
	t.mu.Lock()
	_, known := t.bound[dev]
	t.mu.Unlock()
	if known {
		return
	}
	fuse := !backing.LastingHandles(fd)
	t.mu.Lock()
	t.bound[dev] = fuse
	t.mu.Unlock()
}

// retake has the descriptor of n, which is pinned, lead to n's inode again if a known name still
// does. ESTALE: the descriptor leads to another inode, and no name leads to n. While another
// goroutine has n.Mu exclusively, retake does nothing: the goroutine with n.Mu sees to the
// descriptor.
func (n *Inode) retake() error {
	if n.ID == RootID || !n.Mu.TryRLock() { // the root was found by no name
		return nil
	}
	defer n.Mu.RUnlock()
	if n.isInode(n.fd) {
		return nil
	}
	fresh, err := n.table.reopenNamed(n)
	if errors.Is(err, unix.ESTALE) && !somewhere(n.fd) {
		return nil // removed: operations that need no name still work
	}
	if err != nil {
		return err
	}
	defer unix.Close(fresh)
	// Other goroutines use the number meanwhile; the old file and the new one are both n's.
	return unix.Dup3(fresh, n.fd, unix.O_CLOEXEC)
}

// somewhere reports whether fd leads to a file at all.
func somewhere(fd int) bool {
	var st unix.Stat_t
	return unix.Fstat(fd, &st) == nil
}

// IsOpen is nil if the open descriptor file leads to n's inode, and ESTALE otherwise.
func (n *Inode) IsOpen(file int) error {
	var st unix.Stat_t
	if err := unix.Fstat(file, &st); err != nil {
		return err
	}
	if backing.KeyOf(&st) != n.Key() {
		return unix.ESTALE
	}
	return nil
}
