package fs

import (
	"math"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"vmcryptfs/fs/content"
	"vmcryptfs/layout"
)

// Fallocate reserves, punches and zeroes. Collapsing and inserting are not supported: an encrypted
// file's units would have to be encrypted anew.
func (r raw) Fallocate(cancel <-chan struct{}, in *fuse.FallocateIn) fuse.Status {
	h := r.handles.get(in.Fh)
	if h == nil || h.dir != nil {
		return fuse.EBADF
	}
	if in.Offset > math.MaxInt64 || in.Length > math.MaxInt64 || in.Length == 0 {
		return fuse.EINVAL
	}
	off, n := int64(in.Offset), int64(in.Length)
	if off > layout.MaxLogical-n {
		return fuse.Status(unix.EFBIG)
	}
	c, ok := reservation(in.Mode, off, n)
	if !ok {
		return fuse.ENOTSUP
	}
	if in.Uid != 0 {
		if err := r.killPrivileges(h.node, &in.InHeader); err != nil {
			return r.status(ofNode("fallocate", h.node), err)
		}
	}
	c.by, c.takes = in.Caller, n
	err := r.change(cancel, h.node, c)
	if err != nil {
		r.dropPages(h.node) // the kernel knows nothing of a part that was done
	}
	return r.status(ofNode("fallocate", h.node), err)
}

// reservation is the change for a mode of fallocate(2); false for a mode that is not supported.
func reservation(mode uint32, off, n int64) (change, bool) {
	keepSize := mode&unix.FALLOC_FL_KEEP_SIZE != 0
	switch mode {
	case 0, unix.FALLOC_FL_KEEP_SIZE:
		return change{
			edit: func(text []byte) []byte {
				if keepSize || off+n <= int64(len(text)) {
					return text
				}
				return resize(text, off+n)
			},
			apply: func(c content.Content) error { return c.Allocate(off, n, keepSize) },
		}, true
	case unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE:
		return change{
			edit:  func(text []byte) []byte { return zeroed(text, off, n, false) },
			apply: func(c content.Content) error { return c.Punch(off, n) },
		}, true
	case unix.FALLOC_FL_ZERO_RANGE, unix.FALLOC_FL_ZERO_RANGE | unix.FALLOC_FL_KEEP_SIZE:
		return change{
			edit:  func(text []byte) []byte { return zeroed(text, off, n, !keepSize) },
			apply: func(c content.Content) error { return c.Zero(off, n, keepSize) },
		}, true
	default:
		return change{}, false
	}
}

// Lseek finds data and holes.
func (r raw) Lseek(_ <-chan struct{}, in *fuse.LseekIn, out *fuse.LseekOut) fuse.Status {
	h := r.handles.get(in.Fh)
	if h == nil || h.dir != nil {
		return fuse.EBADF
	}
	if in.Whence != unix.SEEK_DATA && in.Whence != unix.SEEK_HOLE {
		return fuse.EINVAL
	}
	if in.Offset > math.MaxInt64 {
		return fuse.Status(unix.ENXIO)
	}
	off, err := h.node.seek(int64(in.Offset), int(in.Whence))
	out.Offset = uint64(off)
	return r.status(ofNode("lseek", h.node), err)
}

func (n *node) seek(off int64, whence int) (int64, error) {
	n.Mu.RLock()
	defer n.Mu.RUnlock()
	if n.file == nil {
		return 0, unix.EBADF
	}
	return n.file.Seek(off, whence)
}
