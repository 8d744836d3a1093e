package fs

import (
	"errors"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"vmcryptfs/byname"
	"vmcryptfs/fs/backing"
	"vmcryptfs/fs/content"
	"vmcryptfs/fs/cryptfile"
	"vmcryptfs/fs/inode"
	"vmcryptfs/layout"
)

// The strictest name decides the form of a file with names of several classes: a file is encrypted
// under a clear name, where another name is encrypted. So only a file in clear has to change its
// form, and only for a name of a stricter class.

// Link gives a file another name, or a file made with O_TMPFILE its first one.
func (r raw) Link(cancel <-chan struct{}, in *fuse.LinkIn, name string, out *fuse.EntryOut) fuse.Status {
	dir, err := r.directory(in.NodeId)
	if err != nil {
		return r.status(ofName("link", dir, name), err)
	}
	defer dir.Unpin()
	n := r.node(in.Oldnodeid)
	if n == nil {
		return fuse.Status(unix.ESTALE)
	}
	if layout.Reserved(name) {
		return fuse.EPERM
	}
	if err := r.link(cancel, n, newName{dir.In(name), in.Caller}); err != nil {
		return r.status(request{"link", n.In(""), dir.In(name)}, err)
	}
	return r.status(ofName("link", dir, name), r.find(dir, name, out))
}

// newName is a new name for a file, made for a caller.
type newName struct {
	inode.Place
	by fuse.Caller
}

func (f *FS) link(cancel <-chan struct{}, n *node, to newName) error {
	if err := f.mayLink(n); err != nil {
		return err
	}
	if !n.IsRegular() {
		return f.linkAsIs(n, to, func() error { return nil })
	}
	if err := f.mayLinkAdopted(n, to.Place); err != nil {
		return err
	}
	v := f.verdict(to.Place)
	class := v.Class
	if turnsClear(v) && f.neverNamed(n) {
		if linked, err := f.linkClear(cancel, n, to); linked || err != nil {
			return err
		}
	}
	if class != f.known(n).Class {
		f.forgetStale(n)
	}
	if stricter(class, f.known(n).Class) {
		return f.supplied(cancel, n, to.Place, func(k *fileKey) error { return f.tryLink(n, to, k) })
	}
	return f.linkAsIs(n, to, func() error {
		if stricter(f.verdict(to.Place).Class, f.known(n).Class) {
			return unix.EXDEV // changed a moment ago by a rename, or by the settings' rules
		}
		return nil
	})
}

// linkAsIs gives n a name, and leaves the form of n as it is. may decides, once names stay as they
// are.
func (f *FS) linkAsIs(n *node, to newName, may func() error) error {
	f.names.RLock()
	defer f.names.RUnlock()
	if err := may(); err != nil {
		return err
	}
	return n.At(func(fd int) error { return f.linkNow(n, fd, to) })
}

// linkNow links in BACKING, where the directory may grow, and in the table. fd is n's. FS.names is
// held.
func (f *FS) linkNow(n *node, fd int, to newName) error {
	if f.isHalf(n, fd) {
		f.refuse(n, linkParts, "a file that moves gets no other name until the move is over", "error", errParts)
		return errParts
	}
	err := f.charge(to.Dir, to.Dir.FD(), to.by, oneBlock, func() error {
		return unix.Linkat(unix.AT_FDCWD, byname.ProcPath(fd), to.Dir.FD(), to.Name, unix.AT_SYMLINK_FOLLOW)
	})
	if err != nil {
		return err
	}
	n.AddName(to.Place)
	if f.verdict(to.Place).Class == layout.Inspect {
		n.unsettled.Store(true)
	}
	return nil
}

// tryLink gives n a name of a stricter class than n has, and converts n first if the plan says so.
func (f *FS) tryLink(n *node, to newName, k *fileKey) error {
	f.names.Lock()
	defer f.names.Unlock()
	n.Mu.Lock()
	defer n.Mu.Unlock()
	p, err := f.planLink(n, to)
	if err == nil && p == encryptFirst {
		err = f.encryptWith(n, k)
	}
	if err != nil {
		return err
	}
	if err := f.linkNow(n, n.FD(), to); err != nil {
		return err
	}
	n.generation++ // an open under way, with n judged by its old names, begins anew
	f.clearByName(n)
	return nil
}

// planLink decides what another name means for n. FS.names and n.Mu are held exclusively.
func (f *FS) planLink(n *node, to newName) (plan, error) {
	before, after := f.known(n).Verdict, f.verdict(to.Place)
	if !stricter(after.Class, before.Class) {
		return keepForm, nil
	}
	p, size, err := n.planForm(before, after)
	switch {
	case err != nil || p != encryptFirst:
		return p, err
	case size > maxConvert:
		return keepForm, unix.EXDEV
	default:
		return p, free(to.Place)
	}
}

// free is nil if nothing has the name at, EEXIST otherwise.
func free(at inode.Place) error {
	var st unix.Stat_t
	err := unix.Fstatat(at.Dir.FD(), at.Name, &st, unix.AT_SYMLINK_NOFOLLOW)
	switch {
	case err == nil:
		return unix.EEXIST
	case errors.Is(err, unix.ENOENT):
		return nil
	default:
		return err
	}
}

// neverNamed reports whether n was made with O_TMPFILE and never had a name: only such a file may
// get a name of any class. A removed file, perhaps removed by other hands, keeps its class.
func (f *FS) neverNamed(n *node) bool {
	names, last := n.Names()
	return len(names) == 0 && last.Name == ""
}

// turnsClear reports whether a file turns clear by its first name. By a policy it does not: it
// keeps the KEK of the directory in which it was made.
func turnsClear(v layout.Verdict) bool { return v.Class == layout.Clear && v.Policy == "" }

// linkClear gives a file without a name up to now one of class clear, if the file is short: the
// clear form gets the name. A long file keeps its form, and linked is false.
func (f *FS) linkClear(cancel <-chan struct{}, n *node, to newName) (linked bool, err error) {
	if err := f.acquire(cancel, n, content.Intent{Read: true}); err != nil {
		return false, err
	}
	linked, err = f.convertLink(n, to)
	return linked, firstError(err, f.release(n, false))
}

func (f *FS) convertLink(n *node, to newName) (linked bool, err error) {
	f.names.Lock()
	defer f.names.Unlock()
	n.Mu.Lock()
	defer n.Mu.Unlock()
	var st unix.Stat_t
	if err := unix.Fstat(n.FD(), &st); err != nil {
		return false, err
	}
	size, err := n.file.Size()
	if err != nil || st.Nlink > 0 || !f.neverNamed(n) || n.file.Form != backing.Encrypted || size > maxConvert ||
		!turnsClear(f.verdict(to.Place)) { // by newer rules

		return false, err
	}
	d := &formDir{parent: to.Dir.FD(), from: n.FD(), link: true, how: f.namingIn(to.Dir)}
	d.open = func() (*content.File, error) {
		return content.OpenClear(d.file, backing.Clear, content.Intent{Read: true, Write: true}), nil
	}
	err = f.convert(n, d, to.Name, func(c cryptfile.Conversion) (cryptfile.Backing, error) {
		return c.ToClear(source{n.file.Content}, size)
	})
	if linked = n.file.Form != backing.Encrypted; linked {
		n.AddName(to.Place)
	}
	return linked, err
}
