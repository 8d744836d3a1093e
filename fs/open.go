package fs

import (
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"vmcryptfs/fs/content"
)

// Open opens a regular file: the kernel opens everything else itself.
func (r raw) Open(cancel <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	n := r.node(in.NodeId)
	if n == nil {
		return fuse.Status(unix.ESTALE)
	}
	return r.status(ofNode("open", n), r.open(cancel, n, in.Flags, out))
}

// open makes a handle of n.
func (f *FS) open(cancel <-chan struct{}, n *node, flags uint32, out *fuse.OpenOut) error {
	if !n.IsRegular() {
		return unix.EINVAL
	}
	want := content.IntentOf(flags)
	if err := f.acquire(cancel, n, want); err != nil {
		return err
	}
	f.handOut(n, flags, want.Write, out)
	return nil
}

// handOut makes a handle of n, which was acquired for the handle, to write or not.
func (f *FS) handOut(n *node, flags uint32, write bool, out *fuse.OpenOut) {
	direct := flags&unix.O_DIRECT != 0
	n.wantDirect(direct, +1)
	n.Ref()
	h := &handle{node: n, direct: direct, write: write}
	if failure := n.syncFailure(); failure != nil && failure.Heard() {
		h.told.Store(failure)
	}
	out.Fh = f.handles.add(h)
	out.OpenFlags = 0
	switch {
	case direct: // many requests in flight
		out.OpenFlags = fuse.FOPEN_DIRECT_IO | fuse.FOPEN_PARALLEL_DIRECT_WRITES
	case f.openBuffered(n):
		out.OpenFlags = fuse.FOPEN_KEEP_CACHE
	}
}

// Release ends a handle; the kernel does not wait for it.
func (r raw) Release(_ <-chan struct{}, in *fuse.ReleaseIn) {
	h := r.handles.get(in.Fh)
	if h == nil {
		return
	}
	r.settle(h.node)
	h.node.wantDirect(h.direct, -1)
	if !h.direct {
		h.node.pages.closeBuffered()
	}
	r.unheard(ofNode("close", h.node), r.release(h.node, h.write))
	r.handles.remove(in.Fh) // the file is not open any more
	h.node.Unref()
}
