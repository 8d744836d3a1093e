package fs

import (
	"errors"
	"strings"

	"vmcryptfs/byname"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

const (
	aclAccess  = "system.posix_acl_access"
	aclDefault = "system.posix_acl_default"
)

// GetXAttr reads an extended attribute of the backing file.
func (r raw) GetXAttr(_ <-chan struct{}, in *fuse.InHeader, name string, dest []byte) (uint32, fuse.Status) {
	return r.sized("getxattr", in.NodeId, func(path string) (int, error) { return unix.Getxattr(path, name, dest) })
}

// ListXAttr lists the attributes of the backing file; trusted ones for root alone, as Linux does.
func (r raw) ListXAttr(_ <-chan struct{}, in *fuse.InHeader, dest []byte) (uint32, fuse.Status) {
	if in.Uid == 0 {
		return r.sized("listxattr", in.NodeId, func(path string) (int, error) { return unix.Listxattr(path, dest) })
	}
	return r.sized("listxattr", in.NodeId, func(path string) (int, error) {
		names, err := listXattrs(path)
		list := ""
		for _, name := range names {
			if !strings.HasPrefix(name, "trusted.") {
				list += name + "\x00"
			}
		}
		if err == nil && len(dest) > 0 && len(list) > len(dest) {
			err = unix.ERANGE
		}
		copy(dest, list)
		return len(list), err
	})
}

// sized makes a call whose answer without room is the size.
func (f *FS) sized(op string, id uint64, call func(path string) (int, error)) (uint32, fuse.Status) {
	n := f.node(id)
	if n == nil {
		return 0, fuse.Status(unix.ESTALE)
	}
	size := 0
	err := n.At(func(fd int) (err error) {
		size, err = call(byname.ProcPath(fd))
		return err
	})
	return uint32(max(size, 0)), f.status(ofNode(op, n), err)
}

// SetXAttr sets an extended attribute. An ACL can take sgid away; the kernel leaves that to us.
func (r raw) SetXAttr(_ <-chan struct{}, in *fuse.SetXAttrIn, name string, value []byte) fuse.Status {
	n := r.node(in.NodeId)
	if n == nil {
		return fuse.Status(unix.ESTALE)
	}
	err := n.At(func(fd int) error {
		return r.charge(&n.Inode, fd, in.Caller, oneBlock, func() error { return unix.Setxattr(byname.ProcPath(fd), name, value, int(in.Flags)) })
	})
	if err != nil || !strings.HasPrefix(name, "system.posix_acl_") {
		return r.status(ofNode("setxattr", n), err)
	}
	var st unix.Stat_t
	if err := n.Stat(&st); err != nil {
		return r.status(ofNode("setxattr", n), err)
	}
	n.mode.Store(st.Mode)
	if in.SetXAttrFlags&fuse.SETXATTR_ACL_KILL_SGID != 0 && st.Mode&unix.S_ISGID != 0 {
		return r.status(ofNode("setxattr", n), n.chmod(st.Mode&0o7777&^unix.S_ISGID))
	}
	return fuse.OK
}

// RemoveXAttr removes an extended attribute of the backing file.
func (r raw) RemoveXAttr(_ <-chan struct{}, in *fuse.InHeader, name string) fuse.Status {
	n := r.node(in.NodeId)
	if n == nil {
		return fuse.Status(unix.ESTALE)
	}
	return r.status(ofNode("removexattr", n), n.At(func(fd int) error { return unix.Removexattr(byname.ProcPath(fd), name) }))
}

// listXattrs are the names of a file's extended attributes; none where BACKING has no attributes.
func listXattrs(path string) ([]string, error) {
	p, err := grow(func(p []byte) (int, error) { return unix.Listxattr(path, p) })
	if errors.Is(err, unix.EOPNOTSUPP) {
		return nil, nil
	}
	return strings.FieldsFunc(string(p), func(c rune) bool { return c == 0 }), err
}

func readXattr(path, name string) ([]byte, error) {
	return grow(func(p []byte) (int, error) { return unix.Getxattr(path, name, p) })
}

// grow makes a call with enough room, and again if more is needed by then.
func grow(call func([]byte) (int, error)) ([]byte, error) {
	for {
		size, err := call(nil)
		if err != nil || size == 0 {
			return nil, err
		}
		p := make([]byte, size)
		n, err := call(p)
		if errors.Is(err, unix.ERANGE) {
			continue
		}
		return p[:max(n, 0)], err
	}
}
