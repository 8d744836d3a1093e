package fs

import (
	"context"
	"fmt"

	"golang.org/x/sys/unix"

	"vmcryptfs/fs/ability"
	"vmcryptfs/fs/backing"
	"vmcryptfs/fs/content"
	"vmcryptfs/fs/datastore"
)

// A node is bound if its file system goes by paths, as most FUSE file systems do (bindfs, sshfs,
// ntfs-3g): a descriptor there stands for the name that it was opened by, not for an inode. When
// that name goes, the descriptor leads nowhere though the file has another; when other hands give
// the name to another file, it leads to that. So whoever holds a bound node has its descriptor
// checked, and got anew by the names that are known, and what is opened by it is checked, too.
// The inode number decides both times. Such a file system does not keep it for the file, so its
// owner must let nobody else write it (docs/reliability.md).

// learn finds what BACKING's file system can do, before anything is written there. Where nothing
// can be written now nothing is known, and that is no reason to refuse: nothing is made.
func (f *FS) learn() error {
	able, err := f.probe()
	if isErrno(err, unix.EROFS, unix.ENOSPC, unix.EDQUOT, unix.EACCES, unix.EPERM) {
		f.log.Warn("what the file system of BACKING can do was not tested", "backing", f.store.Path(), "error", err)
		able, err = ability.Glance(f.store.Fd()), nil
	}
	if err != nil {
		return err
	}
	f.able.Store(able)
	return able.Err()
}

func (f *FS) probe() (*ability.Report, error) {
	const flags = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
	dir, err := unix.Openat(f.store.Fd(), datastore.Dir, flags, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", datastore.Dir, err)
	}
	defer unix.Close(dir)
	return ability.Probe(context.Background(), dir, f.temps.host)
}

// Abilities are those of BACKING's file system, as New found them.
func (f *FS) Abilities() *ability.Report { return f.able.Load() }

// byPaths tells if BACKING goes by paths, or may where that was not tested.
func (f *FS) byPaths() bool {
	switch f.Abilities().Abilities[ability.FirstName].Answer {
	case ability.Yes:
		return false
	case ability.No:
		return true
	default:
		return !backing.LastingHandles(f.store.Fd())
	}
}

// openFor opens n's backing file for want by its descriptor fd: ESTALE if that led to another.
func (n *node) openFor(want content.Intent, fd int) (file int, can content.Intent, err error) {
	file, can, err = n.openWanted(want, fd)
	if err == nil && n.Bound {
		if err = n.IsOpen(file); err != nil {
			unix.Close(file)
		}
	}
	return file, can, err
}

// mayLink is EPERM, as for a file system without hard links, if both names of a file would be
// taken for a file each: two programs would write it, neither of which knows of the other.
func (f *FS) mayLink(n *node) error {
	same := !n.Bound // of what is mounted below BACKING that is not known
	if f.table.OnRoot(n.Key()) {
		same = !f.Abilities().Lacks(ability.LinkNumber)
	}
	if !same {
		return unix.EPERM
	}
	return nil
}
