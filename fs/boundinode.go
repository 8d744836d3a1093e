package fs

import (
	"errors"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"vmcryptfs/fs/backing"
)

// learnDevice notes if the file system of an inode that fd stands for goes by paths. One that is
// mounted below BACKING was not tested: if it is one of FUSE's it may.
func (t *table) learnDevice(fd int, dev uint64) {
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
func (n *inode) retake() error {
	if n.id == fuse.FUSE_ROOT_ID || !n.mu.TryRLock() { // the root was found by no name
		return nil
	}
	defer n.mu.RUnlock()
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

// isOpen is ESTALE if file is not n's inode.
func (n *inode) isOpen(file int) error {
	var st unix.Stat_t
	if err := unix.Fstat(file, &st); err != nil {
		return err
	}
	if backing.KeyOf(&st) != n.identity() {
		return unix.ESTALE
	}
	return nil
}
