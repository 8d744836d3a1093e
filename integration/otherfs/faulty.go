package otherfs

import (
	"context"
	"sync/atomic"
	"testing"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// Faults are the faults of a faulty file system; zero values are right.
type Faults struct {
	Link      unix.Errno // error of link(2)
	Rename2   unix.Errno // error of renameat2(2) with flags
	Sync      unix.Errno // error of fsync(2)
	Extend    unix.Errno // error of a call that lengthens a file
	Lock      unix.Errno // error of locks
	NoFlags   bool       // renameat2(2) passes over flags
	Conflict  unix.Errno // error of a lock held by another process
	KeepNew   bool       // rename(2) does not replace
	LockTwice bool       // two get one lock
	Twice     bool       // O_EXCL opens an existing file
	Numbers   bool       // inode numbers change from one look to the next
	Linkless  bool       // files have a count of no links
	Lost      bool       // a renamed file cannot be opened by its old node
	Shouting  bool       // FIRST is first
}

// Faulty mounts a directory of the test on dir with faults, until the test ends.
func Faulty(t testing.TB, dir string, faults Faults) {
	t.Helper()
	source := t.TempDir()
	var st unix.Stat_t
	if err := unix.Stat(source, &st); err != nil {
		t.Fatal(err)
	}
	root := &fs.LoopbackRoot{Path: source, Dev: st.Dev}
	node := &faulty{LoopbackNode: fs.LoopbackNode{RootData: root}, faults: &faults}
	root.RootNode = node
	server, err := fs.Mount(dir, node, &fs.Options{MountOptions: fuse.MountOptions{
		AllowOther: true, FsName: "faulty", Name: "faulty", EnableLocks: true, DirectMountStrict: true,
		DirectMountFlags: unix.MS_NOSUID | unix.MS_NODEV,
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		unmount(t, dir)
		server.Wait()
	})
}

// faulty is a file or directory of a faulty file system.
type faulty struct {
	fs.LoopbackNode
	faults  *Faults
	looks   atomic.Uint64 // at names in the directory
	renamed atomic.Bool
}

// WrapChild makes nodes found in n as faulty as n.
func (n *faulty) WrapChild(context.Context, fs.InodeEmbedder) fs.InodeEmbedder {
	return &faulty{LoopbackNode: fs.LoopbackNode{RootData: n.RootData}, faults: n.faults}
}

func (n *faulty) Link(ctx context.Context, target fs.InodeEmbedder, name string, out *fuse.EntryOut) (*fs.Inode, unix.Errno) {
	if n.faults.Link != 0 {
		return nil, n.faults.Link
	}
	return n.LoopbackNode.Link(ctx, target, name, out)
}

func (n *faulty) Rename(ctx context.Context, name string, parent fs.InodeEmbedder, newName string, flags uint32) unix.Errno {
	to := parent.EmbeddedInode()
	if n.faults.NoFlags {
		flags = 0
	}
	switch {
	case flags != 0 && n.faults.Rename2 != 0:
		return n.faults.Rename2
	case n.faults.KeepNew && to.GetChild(newName) != nil:
		return unix.EEXIST
	}
	if child := n.GetChild(name); child != nil {
		if f, ok := child.Operations().(*faulty); ok {
			f.renamed.Store(true)
		}
	}
	return n.LoopbackNode.Rename(ctx, name, parent, newName, flags)
}

func (n *faulty) Open(ctx context.Context, flags uint32) (fs.FileHandle, uint32, unix.Errno) {
	if n.faults.Lost && n.renamed.Load() {
		return nil, 0, unix.ESTALE
	}
	return n.LoopbackNode.Open(ctx, flags)
}

func (n *faulty) Getattr(ctx context.Context, f fs.FileHandle, out *fuse.AttrOut) unix.Errno {
	errno := n.LoopbackNode.Getattr(ctx, f, out)
	if n.faults.Linkless && out.Mode&unix.S_IFMT == unix.S_IFREG {
		out.Nlink = 0
	}
	return errno
}

func (n *faulty) Fsync(context.Context, fs.FileHandle, uint32) unix.Errno { return n.faults.Sync }

func (n *faulty) Setattr(ctx context.Context, f fs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) unix.Errno {
	if size, ok := in.GetSize(); ok && size > 0 && n.faults.Extend != 0 {
		return n.faults.Extend
	}
	return n.LoopbackNode.Setattr(ctx, f, in, out)
}

func (n *faulty) Lookup(ctx context.Context, name string, out *fuse.EntryOut) (*fs.Inode, unix.Errno) {
	switch {
	case n.faults.Twice && name == "first" && n.looks.Add(1) <= 3: // one look to make the file, two to make it again
		return nil, unix.ENOENT
	case n.faults.Shouting && name == "FIRST":
		name = "first"
	}
	found, errno := n.LoopbackNode.Lookup(ctx, name, out)
	if errno == 0 && n.faults.Numbers && !found.IsDir() {
		other := fs.StableAttr{Mode: out.Mode, Ino: n.looks.Add(1)}
		found = n.NewInode(ctx, n.WrapChild(ctx, nil), other)
	}
	return found, errno
}

func (n *faulty) Create(ctx context.Context, name string, flags, mode uint32, out *fuse.EntryOut) (*fs.Inode, fs.FileHandle, uint32, unix.Errno) {
	if n.faults.Twice {
		flags &^= unix.O_EXCL
	}
	return n.LoopbackNode.Create(ctx, name, flags, mode, out)
}

func (n *faulty) Getlk(context.Context, fs.FileHandle, uint64, *fuse.FileLock, uint32, *fuse.FileLock) unix.Errno {
	return unix.ENOLCK
}

func (n *faulty) Setlk(ctx context.Context, f fs.FileHandle, owner uint64, lk *fuse.FileLock, flags uint32) unix.Errno {
	switch {
	case n.faults.Lock != 0:
		return n.faults.Lock
	case n.faults.LockTwice:
		return 0
	}
	errno := f.(fs.FileSetlker).Setlk(ctx, owner, lk, flags)
	if errno == unix.EAGAIN && n.faults.Conflict != 0 {
		errno = n.faults.Conflict
	}
	return errno
}
