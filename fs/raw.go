package fs

import (
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// raw is FS as go-fuse calls it: one method for each FUSE operation, in the file of the operation's
// name. Operations without a file of their own are here.
type raw struct{ *FS }

var _ fuse.RawFileSystem = raw{}

func (r raw) String() string { return "vmcryptfs" }
func (r raw) SetDebug(bool)  {}
func (r raw) OnUnmount()     {}

// Init is answered by the transport; see SetNotifier.
func (r raw) Init(*fuse.Server) {}

// Access is decided by the kernel (default_permissions).
func (r raw) Access(<-chan struct{}, *fuse.AccessIn) fuse.Status { return fuse.ENOSYS }

// Ioctl is refused: files here have no ioctls of their own, and BACKING's must not be reached:
// FICLONE and the like would write around encryption.
func (r raw) Ioctl(<-chan struct{}, *fuse.IoctlIn, []byte, *fuse.IoctlOut, []byte) fuse.Status {
	return fuse.Status(unix.ENOTTY)
}

// GetLk is left to the kernel, whose own locks are exact on one host.
func (r raw) GetLk(<-chan struct{}, *fuse.LkIn, *fuse.LkOut) fuse.Status { return fuse.ENOSYS }

// SetLk: see GetLk.
func (r raw) SetLk(<-chan struct{}, *fuse.LkIn) fuse.Status { return fuse.ENOSYS }

// SetLkw: see GetLk.
func (r raw) SetLkw(<-chan struct{}, *fuse.LkIn) fuse.Status { return fuse.ENOSYS }

// StatFs gives the status of BACKING's file system.
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
