package fs

import (
	"errors"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"vmcryptfs/fs/inode"
	"vmcryptfs/layout"
)

// Mknod makes a regular file, or a device, FIFO or socket.
func (r raw) Mknod(cancel <-chan struct{}, in *fuse.MknodIn, name string, out *fuse.EntryOut) fuse.Status {
	dir, err := r.directory(in.NodeId)
	if err != nil {
		return r.status(ofName("mknod", dir, name), err)
	}
	defer dir.Unpin()
	c := creation{dir, name, in.Mode, in.Umask, in.Owner}
	if kind := in.Mode & unix.S_IFMT; kind == unix.S_IFREG || kind == 0 {
		n, err := r.create(cancel, c)
		if err != nil {
			return r.status(c.asked("mknod"), err)
		}
		if err := r.release(n, true); err != nil {
			r.table.Forget(n.ID, 1)
			return r.status(c.asked("mknod"), err)
		}
		_, err = r.entry(n, out)
		return r.status(c.asked("mknod"), err)
	}
	mode := in.Mode&unix.S_IFMT | c.permissions()
	return r.make(c, "mknod", out, func() error { return unix.Mknodat(dir.FD(), name, mode, int(in.Rdev)) })
}

// Mkdir makes a directory.
func (r raw) Mkdir(_ <-chan struct{}, in *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	dir, err := r.directory(in.NodeId)
	if err != nil {
		return r.status(ofName("mkdir", dir, name), err)
	}
	defer dir.Unpin()
	c := creation{dir, name, in.Mode&^unix.S_IFMT | unix.S_IFDIR, in.Umask, in.Owner}
	mode := c.permissions()
	return r.make(c, "mkdir", out, func() error { return unix.Mkdirat(dir.FD(), name, mode) })
}

// Symlink makes a symbolic link.
func (r raw) Symlink(_ <-chan struct{}, in *fuse.InHeader, target, name string, out *fuse.EntryOut) fuse.Status {
	dir, err := r.directory(in.NodeId)
	if err != nil {
		return r.status(ofName("symlink", dir, name), err)
	}
	defer dir.Unpin()
	c := creation{dir: dir, name: name, mode: unix.S_IFLNK, owner: in.Owner}
	return r.make(c, "symlink", out, func() error { return unix.Symlinkat(target, dir.FD(), name) })
}

// make makes a file without content of its own, by call, for the caller; op is the operation in the
// log. make needs no key, and no proven settings.
func (f *FS) make(c creation, op string, out *fuse.EntryOut, call func() error) fuse.Status {
	if layout.Reserved(c.name) {
		return fuse.EPERM
	}
	f.names.RLock()
	defer f.names.RUnlock()
	if err := f.daemon.as(c.owner, call); err != nil {
		return f.status(c.asked(op), err)
	}
	c.dir.Renames.Add(1)
	n, err := f.lookup(c.place())
	if err != nil {
		return f.status(c.asked(op), err)
	}
	if err := n.At(func(fd int) error { return f.daemon.give(c, fd) }); err != nil {
		err = errors.Join(err, f.unmake(c, n))
		f.table.Forget(n.ID, 1)
		return f.status(c.asked(op), err)
	}
	_, err = f.entry(n, out)
	return f.status(c.asked(op), err)
}

// unmake removes a new file after a failure to give the file to its group.
func (f *FS) unmake(c creation, n *node) error {
	flags := 0
	if n.IsDir() {
		flags = unix.AT_REMOVEDIR
	}
	err := removeIf(c.dir.FD(), c.name, n.Key(), flags)
	f.table.Removed(c.place())
	return err
}

// Unlink removes a name of a file; no key is needed.
func (r raw) Unlink(_ <-chan struct{}, in *fuse.InHeader, name string) fuse.Status {
	return r.remove("unlink", in.NodeId, name, func(at inode.Place) error { return r.removeName(at, 0) })
}

// Rmdir removes an empty directory, and the place that the directory is.
func (r raw) Rmdir(cancel <-chan struct{}, in *fuse.InHeader, name string) fuse.Status {
	return r.remove("rmdir", in.NodeId, name, func(at inode.Place) error { return r.removeDirectory(cancel, at) })
}

func (f *FS) remove(op string, id uint64, name string, by func(at inode.Place) error) fuse.Status {
	dir, err := f.directory(id)
	if err != nil {
		return f.status(ofName(op, dir, name), err)
	}
	defer dir.Unpin()
	if layout.Reserved(name) {
		return fuse.ENOENT
	}
	return f.status(ofName(op, dir, name), by(dir.In(name)))
}

// removeName removes a name from its directory, which is pinned. flags are unlinkat(2)'s.
func (f *FS) removeName(at inode.Place, flags int) error {
	err := f.removeNameAlone(at, flags)
	if errors.Is(err, errMoves) {
		return f.removeMoving(at)
	}
	return err
}

// removeNameAlone is removeName of anything but a file that moves. errMoves: it moves.
func (f *FS) removeNameAlone(at inode.Place, flags int) error {
	f.names.RLock()
	defer f.names.RUnlock()
	if flags == 0 && f.halfAt(at).moves() {
		return errMoves
	}
	// The removed name leads to a node no more, and the node may still be in use.
	if n := f.called(at); n != nil && n.Pin() == nil {
		defer n.Unpin()
	}
	if err := f.emptied(at, func() error { return unix.Unlinkat(at.Dir.FD(), at.Name, flags) }); err != nil {
		return err
	}
	f.table.Removed(at)
	return nil
}
