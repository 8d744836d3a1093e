package inode

import (
	"errors"

	"golang.org/x/sys/unix"

	"vmcryptfs/fs/backing"
)

// LearnDevice notes if the file system of an inode that fd stands for goes by paths. One that is
// mounted below BACKING was not tested: if it is one of FUSE's it may.
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

// retake has the descriptor of n, which is held, lead to n's inode if a known name does. ESTALE:
// it leads to another. Who has n.mu exclusively sees to the descriptor.
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
		return nil // a removed file: what can be done with it without a name can be done
	}
	if err != nil {
		return err
	}
	defer unix.Close(fresh)
	// Others use the number meanwhile, and either file is n's.
	return unix.Dup3(fresh, n.fd, unix.O_CLOEXEC)
}

// somewhere tells if fd leads to a file at all.
func somewhere(fd int) bool {
	var st unix.Stat_t
	return unix.Fstat(fd, &st) == nil
}

// IsOpen is ESTALE if file is not n's inode.
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
