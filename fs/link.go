package fs

import (
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"vmcryptfs/fs/cryptfile"
	"vmcryptfs/layout"
)

// Link gives a file another name of the same class, or one made with O_TMPFILE its first.
func (r raw) Link(cancel <-chan struct{}, in *fuse.LinkIn, name string, out *fuse.EntryOut) fuse.Status {
	dir, err := r.directory(in.NodeId)
	if err != nil {
		return r.status(err)
	}
	defer dir.letGo()
	n := r.table.get(in.Oldnodeid)
	if n == nil {
		return fuse.Status(unix.ESTALE)
	}
	if layout.Reserved(name) {
		return fuse.EPERM
	}
	if err := r.link(n, dir, name); err != nil {
		return r.status(err)
	}
	return r.status(r.find(dir, name, out))
}

func (f *FS) link(n *node, dir *node, name string) error {
	class := f.classify(name).Class
	first := n.isRegular() && f.neverNamed(n)
	if first && class == layout.Clear {
		return f.linkClear(n, dir, name)
	}
	if n.isRegular() && !first && class != f.known(n).Class {
		f.forgetStale(n)
	}
	f.names.RLock()
	defer f.names.RUnlock()
	if n.isRegular() && !first && class != f.known(n).Class {
		return unix.EXDEV
	}
	err := n.at(func(fd int) error {
		return unix.Linkat(unix.AT_FDCWD, procPath(fd), dir.fd, name, unix.AT_SYMLINK_FOLLOW)
	})
	if err != nil {
		return err
	}
	f.table.addName(n, dir, name)
	if class == layout.Inspect {
		n.unsettled.Store(true)
	}
	return nil
}

// neverNamed tells if n was made with O_TMPFILE and never had a name: only such a file may
// get one of any class. One that was removed, be it by other hands, keeps the class that
// it had.
func (f *FS) neverNamed(n *node) bool {
	names, last := f.table.namesOf(n)
	return len(names) == 0 && last == ""
}

// linkClear gives a file that never had a name one of class clear: the clear form gets it.
func (f *FS) linkClear(n *node, dir *node, name string) error {
	if err := f.acquire(nil, n, false); err != nil {
		return err
	}
	err := f.convertLink(n, dir, name)
	return firstError(err, f.release(n))
}

func (f *FS) convertLink(n *node, dir *node, name string) error {
	f.names.Lock()
	defer f.names.Unlock()
	n.mu.Lock()
	defer n.mu.Unlock()
	var st unix.Stat_t
	if err := unix.Fstat(n.fd, &st); err != nil {
		return err
	}
	size, err := n.file.size()
	switch {
	case err != nil:
		return err
	case st.Nlink > 0 || !f.neverNamed(n) || n.file.form != formEncrypted:
		return unix.EXDEV
	case size > maxConvert:
		return unix.EXDEV
	}
	d := &formDir{parent: dir.fd, from: n.fd, link: true}
	d.open = func() (*openFile, error) { return openClear(d.file, formClear), nil }
	err = f.convert(n, d, name, func(c cryptfile.Conversion) (cryptfile.Backing, error) {
		return c.ToClear(source{n.file.content}, size)
	})
	if n.file.form != formEncrypted { // and so it has the name
		f.table.addName(n, dir, name)
	}
	return err
}
