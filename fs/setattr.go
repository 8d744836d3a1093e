package fs

import (
	"math"
	"time"

	"vmcryptfs/byname"
	"vmcryptfs/fs/content"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// SetAttr changes owner, mode, size and times, in the order in which no change undoes another: a
// change of owner clears suid, a change of the size sets the modification time.
func (r raw) SetAttr(cancel <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	n := r.node(in.NodeId)
	if n == nil {
		return fuse.Status(unix.ESTALE)
	}
	if err := r.setAttr(cancel, n, in); err != nil {
		return r.status(ofNode("setattr", n), err)
	}
	seen, err := r.readAttr(n, &out.Attr)
	if _, resized := in.GetSize(); !resized {
		r.refresh(n, seen)
	} // else the kernel writes no changed page back before this answer
	out.SetTimeout(seen.valid)
	return r.status(ofNode("setattr", n), err)
}

func (f *FS) setAttr(cancel <-chan struct{}, n *node, in *fuse.SetAttrIn) error {
	if in.Valid&(fuse.FATTR_UID|fuse.FATTR_GID) != 0 {
		if err := n.chown(&in.SetAttrInCommon); err != nil {
			return err
		}
	}
	if mode, ok := in.GetMode(); ok {
		if err := n.chmod(mode); err != nil {
			return err
		}
	}
	if size, ok := in.GetSize(); ok {
		if in.Valid&fuse.FATTR_KILL_SUIDGID != 0 {
			if err := f.killPrivileges(n, &in.InHeader); err != nil {
				return err
			}
		}
		if err := f.truncate(cancel, n, size, in.Caller); err != nil {
			return err
		}
	}
	if in.Valid&(fuse.FATTR_ATIME|fuse.FATTR_MTIME) != 0 {
		return n.setTimes(&in.SetAttrInCommon)
	}
	return nil
}

func (n *node) chown(in *fuse.SetAttrInCommon) error {
	uid, gid := -1, -1
	if in.Valid&fuse.FATTR_UID != 0 {
		uid = int(in.Uid)
	}
	if in.Valid&fuse.FATTR_GID != 0 {
		gid = int(in.Gid)
	}
	return n.At(func(fd int) error { return unix.Fchownat(fd, "", uid, gid, unix.AT_EMPTY_PATH) })
}

func (n *node) chmod(mode uint32) error {
	if n.Kind == unix.S_IFLNK {
		return unix.EOPNOTSUPP
	}
	if err := n.At(func(fd int) error { return unix.Chmod(byname.ProcPath(fd), mode) }); err != nil {
		return err
	}
	n.mode.Store(n.Kind | mode)
	return nil
}

func (n *node) setTimes(in *fuse.SetAttrInCommon) error {
	times := []unix.Timespec{
		timeOf(in.Valid, fuse.FATTR_ATIME, fuse.FATTR_ATIME_NOW, in.Atime, in.Atimensec),
		timeOf(in.Valid, fuse.FATTR_MTIME, fuse.FATTR_MTIME_NOW, in.Mtime, in.Mtimensec),
	}
	return n.At(func(fd int) error {
		if n.file != nil && in.Valid&fuse.FATTR_MTIME != 0 {
			n.file.DropTimes()
		}
		return unix.UtimesNanoAt(fd, "", times, unix.AT_EMPTY_PATH)
	})
}

func timeOf(valid, set, now uint32, sec uint64, nsec uint32) unix.Timespec {
	switch {
	case valid&set == 0:
		return unix.Timespec{Nsec: unix.UTIME_OMIT}
	case valid&now != 0:
		return unix.Timespec{Nsec: unix.UTIME_NOW}
	default: // seconds before 1970 come as two's complement
		return unix.Timespec{Sec: int64(sec), Nsec: int64(nsec) % int64(time.Second)}
	}
}

// truncate sets the logical size, in bytes; the file need not be open.
func (f *FS) truncate(cancel <-chan struct{}, n *node, size uint64, by fuse.Caller) error {
	if size > math.MaxInt64 {
		return unix.EFBIG
	}
	if !n.IsRegular() {
		return unix.EINVAL
	}
	if err := f.acquire(cancel, n, content.Intent{Write: true}); err != nil {
		return err
	}
	err := f.change(cancel, n, change{
		edit:  func(text []byte) []byte { return resize(text, int64(size)) },
		apply: func(c content.Content) error { return c.Truncate(int64(size)) },
		by:    by,
		takes: oneBlock, // the last unit is stored whole
	})
	if err != nil {
		f.dropAttributes(n) // the size may be any between the old and the new one
	}
	f.settle(n)
	return firstError(err, f.release(n, true))
}

// firstError is err, the error of the operation, or else next, the error of its end.
func firstError(err, next error) error {
	if err != nil {
		return err
	}
	return next
}
