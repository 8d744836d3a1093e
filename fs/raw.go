package fs

import (
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// raw is FS as go-fuse calls it: one method for each FUSE operation, in the files named
// after what they do. Those that need no file of their own are here.
type raw struct{ *FS }

var _ fuse.RawFileSystem = raw{}

func (r raw) String() string { return "vmcryptfs" }
func (r raw) SetDebug(bool)  {}
func (r raw) OnUnmount()     {}

// Init is the transport's to answer; see SetNotifier.
func (r raw) Init(*fuse.Server) {}

// Access is decided by the kernel (default_permissions).
func (r raw) Access(<-chan struct{}, *fuse.AccessIn) fuse.Status { return fuse.ENOSYS }

// Ioctl: files here have none of their own, and those of BACKING must not be reached:
// FICLONE and the like would write around encryption.
func (r raw) Ioctl(<-chan struct{}, *fuse.IoctlIn, []byte, *fuse.IoctlOut, []byte) fuse.Status {
	return fuse.Status(unix.ENOTTY)
}

// GetLk: locks are the kernel's own, which are exact on one host.
func (r raw) GetLk(<-chan struct{}, *fuse.LkIn, *fuse.LkOut) fuse.Status { return fuse.ENOSYS }

// SetLk: see GetLk.
func (r raw) SetLk(<-chan struct{}, *fuse.LkIn) fuse.Status { return fuse.ENOSYS }

// SetLkw: see GetLk.
func (r raw) SetLkw(<-chan struct{}, *fuse.LkIn) fuse.Status { return fuse.ENOSYS }

// StatFs is BACKING's.
func (r raw) StatFs(_ <-chan struct{}, in *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	n := r.node(in.NodeId)
	if n == nil {
		return fuse.Status(unix.ESTALE)
	}
	var st unix.Statfs_t
	if err := n.At(func(fd int) error { return unix.Fstatfs(fd, &st) }); err != nil {
		return r.status(ofNode("statfs", n), err)
	}
	*out = fuse.StatfsOut{
		Blocks:  st.Blocks,
		Bfree:   st.Bfree,
		Bavail:  st.Bavail,
		Files:   st.Files,
		Ffree:   st.Ffree,
		Bsize:   uint32(st.Bsize),
		NameLen: uint32(st.Namelen),
		Frsize:  uint32(st.Frsize),
	}
	return fuse.OK
}
