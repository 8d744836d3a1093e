package fs

import (
	"cmp"
	"errors"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"vmcryptfs/fs/backing"
	"vmcryptfs/fs/inode"
	"vmcryptfs/layout"
)

// Lookup finds a name.
func (r raw) Lookup(cancel <-chan struct{}, in *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	if name == "." || name == ".." {
		return r.status(ofNode("lookup", cmp.Or(r.node(in.NodeId), r.root())), r.recall(cancel, in.NodeId, name, out))
	}
	dir, err := r.directory(in.NodeId)
	if err != nil {
		return r.status(ofName("lookup", dir, name), err)
	}
	defer dir.Unpin()
	return r.status(ofName("lookup", dir, name), r.find(dir, name, out))
}

// find counts a lookup of name in dir, which is held, and fills the answer. No lock is held but
// that of a directory being listed.
func (f *FS) find(dir *node, name string, out *fuse.EntryOut) error {
	n, seen, err := f.lookupEntry(dir, name, out)
	if err == nil {
		f.refresh(n, seen)
	}
	return err
}

func (f *FS) lookupEntry(dir *node, name string, out *fuse.EntryOut) (n *node, seen look, err error) {
	f.names.RLock()
	defer f.names.RUnlock()
	if n, err = f.lookup(dir.In(name)); err == nil {
		seen, err = f.entry(n, out)
	}
	return n, seen, err
}

// Forget takes back lookups.
func (r raw) Forget(id, lookups uint64) { r.table.Forget(id, lookups) }

// Readlink gives the target of a symbolic link.
func (r raw) Readlink(_ <-chan struct{}, in *fuse.InHeader) ([]byte, fuse.Status) {
	n := r.node(in.NodeId)
	if n == nil {
		return nil, fuse.Status(unix.ESTALE)
	}
	target := make([]byte, unix.PathMax)
	err := n.At(func(fd int) error {
		size, err := unix.Readlinkat(fd, "", target)
		target = target[:max(size, 0)]
		return err
	})
	return target, r.status(ofNode("readlink", n), err)
}

// directory is the node of a directory's id, pinned.
func (f *FS) directory(id uint64) (*node, error) {
	n := f.node(id)
	switch {
	case n == nil:
		return nil, unix.ESTALE
	case !n.IsDir():
		return nil, unix.ENOTDIR
	default:
		return n, n.Pin()
	}
}

// lookup counts a lookup of a name. FS.names is held, and the directory is pinned. While lookup looks,
// another request may make, rename or remove a name in the directory: a result from before, found
// or not found, must not be noted afterwards.
func (f *FS) lookup(at inode.Place) (*node, error) {
	if layout.Reserved(at.Name) {
		return nil, unix.ENOENT
	}
	for {
		moves := at.Dir.Renames.Load()
		n, err := f.lookupOnce(at)
		if at.Dir.Renames.Load() == moves {
			return n, err
		}
		if err == nil {
			f.table.Forget(n.ID, 1)
		}
	}
}

func (f *FS) lookupOnce(at inode.Place) (*node, error) {
	fd, err := f.table.OpenPath(at.Dir.FD(), at.Name)
	if err != nil {
		if errors.Is(err, unix.ENOENT) {
			f.table.FoundGone(at)
		}
		return nil, err
	}
	return f.adopt(fd, at)
}

// adopt counts a lookup of the inode of fd, an O_PATH descriptor, and takes over fd. at is the
// place where the inode was found; the zero Place: nowhere.
func (f *FS) adopt(fd int, at inode.Place) (*node, error) { return f.enter(fd, at, f.table.Enter) }

// adoptNew is adopt of a file just made, which has no name but at.
func (f *FS) adoptNew(fd int, at inode.Place) (*node, error) {
	return f.enter(fd, at, f.table.EnterNew)
}

func (f *FS) enter(fd int, at inode.Place, enter func(int, *unix.Stat_t, backing.Birth, inode.Place) *inode.Inode) (*node, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	if backing.KeyOf(&st) == f.own {
		// The caller used another spelling of the program's directory: BACKING may fold cases and
		// more (ext4's casefold, CIFS). The temporaries' names cannot be guessed.
		return nil, errors.Join(unix.ENOENT, unix.Close(fd))
	}
	f.table.LearnDevice(fd, st.Dev)
	return nodeOf(enter(fd, &st, f.table.BirthOf(fd), at)), nil
}

// entry fills the answer for a node whose lookup was counted; an error takes the lookup back.
func (f *FS) entry(n *node, out *fuse.EntryOut) (look, error) {
	seen, err := f.readAttr(n, &out.Attr)
	if err != nil {
		f.table.Forget(n.ID, 1)
		return seen, err
	}
	out.NodeId, out.Generation = n.ID, uint64(n.Born)
	out.SetEntryTimeout(inode.CacheTime)
	out.SetAttrTimeout(seen.valid)
	return seen, nil
}
