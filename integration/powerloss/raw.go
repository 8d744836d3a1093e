package powerloss

import (
	"maps"
	"slices"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// raw is a Disk for go-fuse's calls. Unimplemented operations are ENOSYS.
type raw struct {
	fuse.RawFileSystem
	*Disk
}

// request runs f as one step: EIO once the power is off, ESTALE where ino is gone.
func (r raw) request(ino uint64, op Op, name string, f func(i *inode) error) fuse.Status {
	r.mu.Lock()
	defer r.mu.Unlock()
	i := r.inodes[ino]
	switch {
	case r.off:
		return fuse.EIO
	case i == nil:
		return fuse.Status(unix.ESTALE)
	}
	if name == "" {
		name = i.name
	}
	if r.fault != nil && op != "" {
		if errno := r.fault(op, name); errno != 0 {
			return fuse.Status(errno)
		}
	}
	return fuse.ToStatus(f(i))
}

func (r raw) attr(ino uint64, out *fuse.Attr) {
	i := r.inodes[ino]
	*out = fuse.Attr{Ino: ino, Mode: i.kind | i.mode, Nlink: 2, Owner: fuse.Owner{Uid: i.uid, Gid: i.gid}, Blksize: 4096}
	out.SetTimes(&i.atime, &i.mtime, &i.ctime)
	if i.file != nil {
		size, _ := i.file.Size() // of a file in memory
		out.Size, out.Blocks = uint64(size), uint64(size+511)/512
		out.Nlink = 0
		for _, entries := range r.names.now {
			for _, to := range entries {
				if to == ino {
					out.Nlink++
				}
			}
		}
	}
}

func (r raw) entry(ino uint64, out *fuse.EntryOut) {
	out.NodeId = ino
	r.attr(ino, &out.Attr)
}

// add makes an inode, and gives the inode a name unless the name is empty.
func (r raw) add(dir uint64, name string, kind, mode uint32, owner fuse.Owner) (uint64, error) {
	if r.names.now[dir][name] != 0 {
		return 0, unix.EEXIST
	}
	r.last++
	i := newInode(kind, mode&0o7777)
	i.uid, i.gid, i.name = owner.Uid, owner.Gid, name
	if kind == unix.S_IFREG {
		i.file = r.content.Create()
	}
	r.inodes[r.last] = i
	if name != "" {
		r.rename(edit{dir, name, r.last})
	}
	return r.last, nil
}

func (r raw) rename(edits ...edit) {
	r.names.change(edits...)
	now := time.Now()
	for _, e := range edits {
		r.inodes[e.dir].mtime, r.inodes[e.dir].ctime = now, now
		if e.ino != 0 {
			r.inodes[e.ino].name, r.inodes[e.ino].ctime = e.name, now
		}
	}
}

func (r raw) Lookup(_ <-chan struct{}, in *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	return r.request(in.NodeId, "", "", func(*inode) error {
		ino := r.names.now[in.NodeId][name]
		if ino == 0 {
			return unix.ENOENT
		}
		r.entry(ino, out)
		return nil
	})
}

func (r raw) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	return r.request(in.NodeId, "", "", func(*inode) error {
		r.attr(in.NodeId, &out.Attr)
		return nil
	})
}

func (r raw) SetAttr(_ <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	op := Op("")
	size, resize := in.GetSize()
	if resize {
		op = Truncate
	}
	return r.request(in.NodeId, op, "", func(i *inode) error {
		if resize {
			if err := i.file.Truncate(int64(size)); err != nil {
				return err
			}
			i.mtime = time.Now()
		}
		i.setAttr(in)
		r.attr(in.NodeId, &out.Attr)
		return nil
	})
}

func (i *inode) setAttr(in *fuse.SetAttrIn) {
	if mode, ok := in.GetMode(); ok {
		i.mode = mode & 0o7777
	}
	if uid, ok := in.GetUID(); ok {
		i.uid = uid
	}
	if gid, ok := in.GetGID(); ok {
		i.gid = gid
	}
	if t, ok := in.GetATime(); ok {
		i.atime = t
	}
	if t, ok := in.GetMTime(); ok {
		i.mtime = t
	}
	i.ctime = time.Now()
}

func (r raw) Mkdir(_ <-chan struct{}, in *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	return r.request(in.NodeId, Create, name, func(*inode) error {
		ino, err := r.add(in.NodeId, name, unix.S_IFDIR, in.Mode, in.Owner)
		if err == nil {
			r.entry(ino, out)
		}
		return err
	})
}

func (r raw) Mknod(_ <-chan struct{}, in *fuse.MknodIn, name string, out *fuse.EntryOut) fuse.Status {
	return r.request(in.NodeId, Create, name, func(*inode) error {
		if in.Mode&unix.S_IFMT != unix.S_IFREG {
			return unix.EPERM
		}
		ino, err := r.add(in.NodeId, name, unix.S_IFREG, in.Mode, in.Owner)
		if err == nil {
			r.entry(ino, out)
		}
		return err
	})
}

func (r raw) Create(_ <-chan struct{}, in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	return r.create(in, name, out)
}

func (r raw) Tmpfile(_ <-chan struct{}, in *fuse.CreateIn, out *fuse.CreateOut) fuse.Status {
	if r.options.NoTmpfile {
		return fuse.Status(unix.EOPNOTSUPP)
	}
	return r.create(in, "", out)
}

func (r raw) create(in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	return r.request(in.NodeId, Create, name, func(*inode) error {
		ino, err := r.add(in.NodeId, name, unix.S_IFREG, in.Mode, in.Owner)
		if err == nil {
			r.entry(ino, &out.EntryOut)
			out.OpenFlags = direct
		}
		return err
	})
}

func (r raw) Link(_ <-chan struct{}, in *fuse.LinkIn, name string, out *fuse.EntryOut) fuse.Status {
	return r.request(in.NodeId, Create, name, func(*inode) error {
		if r.names.now[in.NodeId][name] != 0 {
			return unix.EEXIST
		}
		if r.inodes[in.Oldnodeid] == nil {
			return unix.ESTALE
		}
		r.rename(edit{in.NodeId, name, in.Oldnodeid})
		r.entry(in.Oldnodeid, out)
		return nil
	})
}

func (r raw) Unlink(_ <-chan struct{}, in *fuse.InHeader, name string) fuse.Status {
	return r.request(in.NodeId, Unlink, name, func(*inode) error {
		if r.names.now[in.NodeId][name] == 0 {
			return unix.ENOENT
		}
		r.rename(edit{in.NodeId, name, 0})
		return nil
	})
}

func (r raw) Rmdir(_ <-chan struct{}, in *fuse.InHeader, name string) fuse.Status {
	return r.request(in.NodeId, Unlink, name, func(*inode) error {
		ino := r.names.now[in.NodeId][name]
		switch {
		case ino == 0:
			return unix.ENOENT
		case len(r.names.now[ino]) > 0:
			return unix.ENOTEMPTY
		}
		r.rename(edit{in.NodeId, name, 0})
		return nil
	})
}

func (r raw) Rename(_ <-chan struct{}, in *fuse.RenameIn, from, to string) fuse.Status {
	return r.request(in.NodeId, Rename, to, func(*inode) error {
		source, target := r.names.now[in.NodeId][from], r.names.now[in.Newdir][to]
		switch {
		case source == 0:
			return unix.ENOENT
		case in.Flags == unix.RENAME_NOREPLACE && target != 0:
			return unix.EEXIST
		case in.Flags&^unix.RENAME_NOREPLACE != 0:
			return unix.EINVAL
		case target == source:
			return nil
		case len(r.names.now[target]) > 0:
			return unix.ENOTEMPTY
		}
		r.rename(edit{in.NodeId, from, 0}, edit{in.Newdir, to, source})
		return nil
	})
}

func (r raw) OpenDir(_ <-chan struct{}, in *fuse.OpenIn, _ *fuse.OpenOut) fuse.Status {
	return r.request(in.NodeId, "", "", func(*inode) error { return nil })
}

// ReadDir returns the names in their order; the offset is the number of names returned before.
func (r raw) ReadDir(_ <-chan struct{}, in *fuse.ReadIn, l *fuse.DirEntryList) fuse.Status {
	return r.request(in.NodeId, "", "", func(*inode) error {
		all := slices.Sorted(maps.Keys(r.names.now[in.NodeId]))
		for at := in.Offset; at < uint64(len(all)); at++ {
			ino := r.names.now[in.NodeId][all[at]]
			if !l.AddDirEntry(fuse.DirEntry{Name: all[at], Mode: r.inodes[ino].kind, Ino: ino, Off: at + 1}) {
				break
			}
		}
		return nil
	})
}

func (r raw) StatFs(_ <-chan struct{}, _ *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	*out = fuse.StatfsOut{Blocks: 1 << 20, Bfree: 1 << 19, Bavail: 1 << 19, Files: 1 << 20, Ffree: 1 << 19, Bsize: 4096, Frsize: 4096, NameLen: 255}
	return fuse.OK
}

func (r raw) FsyncDir(_ <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	return r.request(in.NodeId, FsyncDir, "", func(i *inode) error {
		i.countSync(in)
		if !r.options.Lies {
			r.names.sync(in.NodeId)
		}
		return r.sync(i)
	})
}

func (i *inode) countSync(in *fuse.FsyncIn) {
	if in.FsyncFlags&1 != 0 { // FUSE_FSYNC_FDATASYNC
		i.syncs.Fdatasync++
	} else {
		i.syncs.Fsync++
	}
}
