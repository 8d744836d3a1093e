package fs

import (
	"errors"

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
	r.names.RLock()
	defer r.names.RUnlock()
	linked, err := r.lookup(dir, name)
	if err != nil {
		return r.status(err)
	}
	return r.status(r.entry(linked, out))
}

func (f *FS) link(n *node, dir *node, name string) error {
	class := f.classify(name).Class
	if n.isRegular() {
		first, err := f.hasNoName(n)
		switch {
		case err != nil:
			return err
		case first && class == layout.Clear:
			return f.linkClear(n, dir, name)
		case !first && class != f.verdict(n).Class:
			return unix.EXDEV
		}
	}
	f.names.RLock()
	defer f.names.RUnlock()
	err := n.at(func(fd int) error {
		return unix.Linkat(unix.AT_FDCWD, procPath(fd), dir.fd, name, unix.AT_SYMLINK_FOLLOW)
	})
	if err == nil && class == layout.Inspect {
		n.unsettled.Store(true)
	}
	return err
}

// hasNoName tells if n is a file made with O_TMPFILE that has no name yet. (To a removed
// one the kernel gives no name.)
func (f *FS) hasNoName(n *node) (bool, error) {
	var st unix.Stat_t
	err := n.stat(&st)
	return st.Nlink == 0, err
}

// linkClear gives a file without a name one of class clear: the clear form gets it.
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
	size, err := n.file.size()
	switch {
	case err != nil:
		return err
	case size > maxConvert:
		return unix.EXDEV
	}
	d := &formDir{parent: dir.fd, from: n.fd, link: true}
	c := cryptfile.Conversion{Dir: d, Temp: f.temps.name(), Name: name, Prepare: d.copyAttributes}
	b, err := c.ToClear(source{n.file.content}, size)
	if b == nil {
		return err
	}
	if err != nil {
		f.log.Warn("a directory could not be synced", "file", f.path(dir), "error", err)
	}
	f.counts.conversions.Add(1)
	return errors.Join(err, f.exchange(n, &openFile{
		content: &clearFile{OSFile: d.file}, backing: d.file, form: formClear, writable: true,
	}))
}
