package fs

import (
	"math"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"vmcryptfs/fs/backing"
	"vmcryptfs/fs/content"
	"vmcryptfs/fs/cryptfile"
)

// sector is the alignment of direct requests, in bytes. A shorter direct read is an error, as on a
// disk's file system: QEMU reads a single byte to learn whether requests of 512 bytes are
// permitted, and a success makes QEMU send all of a guest's requests as 4096 bytes. (The kernel
// splits a long request where an unaligned buffer's pages end; a part shorter than a sector does
// not begin at one.)
const sector = 512

// Read reads from a handle. A read that ends before the end of the file allocates nothing: the
// buffer itself is the answer.
func (r raw) Read(_ <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	h := r.handles.get(in.Fh)
	if h == nil || h.dir != nil {
		return nil, fuse.EBADF
	}
	// Flags are those of the request, not of the open: fcntl(2) changes the flags of an open file.
	direct := in.Flags&unix.O_DIRECT != 0
	if in.Offset > math.MaxInt64 || direct && in.Offset%sector == 0 && in.Size < sector {
		return nil, fuse.EINVAL
	}
	n, err := h.node.read(buf, int64(in.Offset), in.Flags&unix.O_NOATIME != 0)
	if err != nil {
		return nil, r.status(ofNode("read", h.node), r.failed(h.node, err))
	}
	r.counts.read(n)
	if n == len(buf) {
		return nil, fuse.OK
	}
	return fuse.ReadResultData(buf[:n]), fuse.OK
}

// read reads for a caller; quiet: with O_NOATIME.
func (n *node) read(p []byte, off int64, quiet bool) (int, error) {
	n.Mu.RLock()
	defer n.Mu.RUnlock()
	if n.file == nil {
		return 0, unix.EBADF
	}
	if n.file.Form == backing.Empty { // bytes there by now were written by other hands
		return 0, nil
	}
	if quiet {
		return n.file.PeekAt(p, off)
	}
	return n.file.ReadAt(p, off)
}

// Writev leaves writes to Write: this transport gives one buffer.
func (r raw) Writev(<-chan struct{}, *fuse.WriteIn, [][]byte) (uint32, fuse.Status) {
	return 0, fuse.ENOSYS
}

// Write encrypts in the transport's buffer, which no other code reads again.
func (r raw) Write(cancel <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	h := r.handles.get(in.Fh)
	if h == nil || h.dir != nil {
		return 0, fuse.EBADF
	}
	if in.Offset > math.MaxInt64-uint64(len(data)) {
		return 0, fuse.Status(unix.EFBIG)
	}
	if in.WriteFlags&fuse.WRITE_KILL_SUIDGID != 0 {
		if err := r.killPrivileges(h.node, &in.InHeader); err != nil {
			return 0, r.status(ofNode("write", h.node), err)
		}
	}
	d := durability(in.Flags)
	n, err := r.write(cancel, h.node, data, int64(in.Offset), in.Flags, r.writer(h.node, in))
	r.counts.wrote(n)
	// h.direct is the flag of the open: the kernel goes around its pages by the flag of the open,
	// whatever fcntl(2) has done since. (Where fcntl(2) has set O_DIRECT, the kernel itself drops
	// pages after the answer.) Pages of a mapping, which the kernel writes back, are left out: the
	// kernel would wait for this answer.
	if h.direct && in.WriteFlags&fuse.WRITE_CACHE == 0 {
		r.wroteDirectly(h.node, int64(in.Offset), len(data))
	}
	if err != nil {
		r.dropAttributes(h.node) // the size may be any between the old and the new one
	}
	if n > 0 { // a part was written; the next write meets the error again
		return uint32(n), fuse.OK
	}
	if d != cryptfile.Volatile {
		h.hears(err)
	}
	return 0, r.status(ofNode("write", h.node), err)
}

// durability is the durability that the flags of an open file, or of one write, ask for.
func durability(flags uint32) cryptfile.Durability {
	switch {
	case flags&unix.O_SYNC == unix.O_SYNC:
		return cryptfile.Full
	case flags&unix.O_DSYNC != 0:
		return cryptfile.Data
	default:
		return cryptfile.Volatile
	}
}

// writer is the caller whose space a write takes. For pages of a mapping, which the kernel writes
// back, writer is the file's owner.
func (f *FS) writer(n *node, in *fuse.WriteIn) fuse.Caller {
	by := in.Caller
	if in.WriteFlags&fuse.WRITE_CACHE != 0 {
		by = fuse.Caller{Owner: nobody()}
		_ = n.At(func(fd int) error { by.Owner = ownerOf(fd); return nil }) // else nobody's
	}
	return by
}

// write writes p to n, open for writing, and may alter p. flags are those of by's open file.
func (f *FS) write(cancel <-chan struct{}, n *node, p []byte, off int64, flags uint32, by fuse.Caller) (int, error) {
	n.Mu.RLock()
	if n.file == nil {
		n.Mu.RUnlock()
		return 0, unix.EBADF
	}
	if n.file.Form == backing.Descriptor {
		n.Mu.RUnlock()
		return f.writeDescriptor(cancel, n, p, off, durability(flags), by)
	}
	defer n.Mu.RUnlock()
	if n.file.Can.Append && flags&unix.O_APPEND == 0 { // fcntl(2) took the flag off, or the write is of a mapping's page
		return 0, unix.EPERM
	}
	var done int
	var err error
	if n.reserve.scarce(n.FD(), int64(len(p))) {
		done, err = f.writeAs(n, p, off, durability(flags), by)
	} else {
		done, err = n.file.WriteAt(p, off, durability(flags))
	}
	n.wrote()
	if n.file.Can.Append {
		f.appended(n, off+int64(done))
	}
	return done, f.failed(n, err)
}

// writeAs writes with the identity of by. n.Mu is held.
func (f *FS) writeAs(n *node, p []byte, off int64, d cryptfile.Durability, by fuse.Caller) (done int, err error) {
	err = f.daemon.asCaller(by, func() (err error) {
		done, err = n.file.WriteAt(p, off, d)
		return err
	})
	return done, err
}

// appended checks an append. The kernel has put the caller's bytes into its pages, up to end;
// BACKING appended at its own end, where other hands may have written. If the ends differ, the
// pages are dropped. n.Mu is held.
func (f *FS) appended(n *node, end int64) {
	if size, err := n.file.Size(); err != nil || size != end {
		f.dropLater(n)
	}
}

func (f *FS) writeDescriptor(cancel <-chan struct{}, n *node, p []byte, off int64, d cryptfile.Durability, by fuse.Caller) (int, error) {
	done := 0
	err := f.changeDescriptor(cancel, n, change{
		edit: func(text []byte) []byte { return overlay(text, p, off) },
		apply: func(c content.Content) (err error) {
			done, err = c.WriteAt(p, off, d)
			return err
		},
		by:    by,
		takes: int64(len(p)),
	})
	return done, err
}

// Fsync makes the written bytes durable, and is one of the moments of late binding.
func (r raw) Fsync(_ <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	h := r.handles.get(in.Fh)
	if h == nil {
		return fuse.EBADF
	}
	d := cryptfile.Full
	if in.FsyncFlags&1 != 0 { // FUSE_FSYNC_FDATASYNC
		d = cryptfile.Data
	}
	r.counts.syncOps.Add(1)
	if err := h.sync(d); err != nil {
		return r.status(ofNode("fsync", h.node), r.failed(h.node, err))
	}
	r.settle(h.node)
	return fuse.OK
}

// Flush is the close(2) of one descriptor, of which a handle may have several.
func (r raw) Flush(_ <-chan struct{}, in *fuse.FlushIn) fuse.Status {
	h := r.handles.get(in.Fh)
	if h == nil {
		return fuse.EBADF
	}
	r.settle(h.node)
	return fuse.OK
}
