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
// ntfs-3g): a descriptor there stands for the name that the descriptor was opened by, not for an
// inode. When the name goes, the descriptor leads nowhere, though the file may have another name;
// when other hands give the name to another file, the descriptor leads there. So Pin checks the
// descriptor of a bound node, and opens the node anew by the known names if necessary; openFor
// checks each file opened by the descriptor. Both go by the inode number. Such a file system does
// not reserve the number for the file, so its owner must let nobody else write there
// (docs/reliability.md).

// learn finds what BACKING's file system can do, before anything is written there. A BACKING that
// cannot be written now stays untested, and is served: nothing will be made there.
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

// Abilities are those of BACKING's file system, as last tested by New or SetReadOnly.
func (f *FS) Abilities() *ability.Report { return f.able.Load() }

// byPaths reports whether BACKING goes by paths; where untested, whether BACKING may.
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

// openFor opens n's backing file for want by its descriptor fd. ESTALE: fd led to another file.
func (n *node) openFor(want content.Intent, fd int) (file int, can content.Intent, err error) {
	file, can, err = n.openWanted(want, fd)
	if err == nil && n.Bound {
		if err = n.IsOpen(file); err != nil {
			unix.Close(file)
		}
	}
	return file, can, err
}

// mayLink is EPERM, as for a file system without hard links, if each of a file's names would be
// taken for a file of its own: two programs would write the file, neither aware of the other.
func (f *FS) mayLink(n *node) error {
	same := !n.Bound // of a file system mounted below BACKING LinkNumber is unknown
	if f.table.OnRoot(n.Key()) {
		same = !f.Abilities().Lacks(ability.LinkNumber)
	}
	if !same {
		return unix.EPERM
	}
	return nil
}
