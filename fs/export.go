package fs

import (
	"errors"
	"strings"

	"vmcryptfs/fs/backing"
	"vmcryptfs/fs/inode"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// A file handle (name_to_handle_at(2), NFS) holds a node id and a generation. When the kernel has
// forgotten the inode of a handle, or an earlier mount gave the handle out, the kernel looks up "."
// by the id, and compares the generation; for a directory found so, the kernel also looks up "..".

// recall is a lookup of "." or "..".
func (f *FS) recall(cancel <-chan struct{}, id uint64, name string, out *fuse.EntryOut) error {
	n, err := f.recallID(id)
	if err == nil {
		err = f.recallNames(cancel, n)
	}
	if err != nil {
		return err
	}
	if name == ".." {
		parent, err := f.recallParent(n)
		f.table.Forget(n.ID, 1)
		if err != nil {
			return err
		}
		n = parent
	}
	seen, err := f.entry(n, out)
	if err != nil {
		return err
	}
	f.refresh(n, seen)
	if out.Nlink == 0 { // a handle does not bring back what was removed
		f.table.Forget(n.ID, 1)
		return unix.ESTALE
	}
	return nil
}

// recallID counts a lookup of the node with an id. A node outside the table is looked for in
// BACKING, by its number.
func (f *FS) recallID(id uint64) (*node, error) {
	if n := nodeOf(f.table.Visit(id)); n != nil {
		return n, nil
	}
	var n *node
	_, err := f.table.Find(f.table.KeyFor(id), func(path string) (_ int, err error) {
		n, err = f.recallPath(path)
		// With birth 0, n could be any file that has got the number.
		if err == nil && (n.ID != id || n.Born == 0) {
			f.table.Forget(n.ID, 1)
			err = unix.ESTALE
		}
		return -1, err
	})
	return n, err
}

// recallNames looks up all names of a file with more names than are known: a handle may stand for
// any name, and the class must not follow from the name found first. An error takes back the lookup
// of n.
func (f *FS) recallNames(cancel <-chan struct{}, n *node) error {
	var st unix.Stat_t
	err := n.Stat(&st)
	names, _ := n.Names()
	if err == nil && n.IsRegular() && uint64(st.Nlink) > uint64(len(names)) {
		err = f.recallLinks(cancel, &st)
	}
	if err != nil {
		f.table.Forget(n.ID, 1)
	}
	return err
}

// recallLinks looks up all names below BACKING of the file of st.
func (f *FS) recallLinks(cancel <-chan struct{}, st *unix.Stat_t) error {
	paths, known := f.table.RememberedPaths(st)
	if known {
		if there, err := f.recallPaths(paths, backing.KeyOf(st)); there || err != nil {
			return err
		}
	}
	ctx, done := cancelContext(cancel)
	defer done()
	lasting := inode.Dated(st)
	paths, err := f.table.SeekPaths(ctx, backing.KeyOf(st))
	if err == nil {
		_, err = f.recallPaths(paths, backing.KeyOf(st))
	}
	if err == nil && lasting {
		f.table.RememberPaths(st, paths)
	}
	return err
}

// recallPaths looks up paths below BACKING, and reports whether all lead to the inode key.
func (f *FS) recallPaths(paths []string, key backing.Key) (there bool, err error) {
	there = true
	for _, at := range paths {
		n, err := f.recallPath(at)
		if errors.Is(err, unix.ESTALE) {
			there = false
			continue
		}
		if err != nil {
			return false, err
		}
		there = there && n.Key() == key
		f.table.Forget(n.ID, 1)
	}
	return there, nil
}

// recallPath counts a lookup of a path below BACKING; ESTALE if the path leads nowhere.
func (f *FS) recallPath(path string) (*node, error) {
	f.names.RLock()
	defer f.names.RUnlock()
	dir := nodeOf(f.table.Visit(fuse.FUSE_ROOT_ID))
	for {
		name, rest, more := strings.Cut(path, "/")
		n, err := f.recallName(dir, name)
		f.table.Forget(dir.ID, 1)
		if err != nil || !more {
			return n, err
		}
		dir, path = n, rest
	}
}

func (f *FS) recallName(dir *node, name string) (*node, error) {
	n, err := f.lookupAt(dir.In(name))
	if inode.LeadsNowhere(err) {
		return nil, unix.ESTALE
	}
	return n, err
}

// recallParent counts a lookup of the directory in which the directory n lies.
func (f *FS) recallParent(n *node) (*node, error) {
	if n.ID == fuse.FUSE_ROOT_ID || !n.IsDir() {
		return nil, unix.ESTALE
	}
	var st unix.Stat_t
	err := n.At(func(fd int) error { return unix.Fstatat(fd, "..", &st, 0) })
	if err != nil {
		return nil, err
	}
	return f.recallID(f.table.IDFor(backing.KeyOf(&st)))
}
