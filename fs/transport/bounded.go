package transport

import "github.com/hanwen/go-fuse/v2/fuse"

// bounded is a file system for go-fuse's own server, which has a goroutine for each request. No
// more requests of one opcode run at once than the opcode has places (most). A goroutine waiting
// for a place holds no thread.
//
// Memory for the payload of writes is bounded (MaxInflightRequestBytes). Memory for reads is not:
// go-fuse makes the buffer of an answer before the call.
//
// The loop does without bounded: a held request there costs neither a goroutine nor a buffer of
// the largest size, and can be counted.
type bounded struct {
	fuse.RawFileSystem                        // FORGET runs on the readers, who are few
	places             [opcodes]chan struct{} // one element for each request under way
}

func newBounded(raw fuse.RawFileSystem) *bounded {
	b := &bounded{RawFileSystem: raw}
	for op := range b.places {
		b.places[op] = make(chan struct{}, min(most(uint32(op)), mostTransfers))
	}
	return b
}

// within calls when there is a place, or is EINTR if the request is cancelled before.
func (b *bounded) within(op uint32, cancel <-chan struct{}, call func() fuse.Status) fuse.Status {
	select {
	case b.places[op] <- struct{}{}:
	case <-cancel:
		return fuse.EINTR
	}
	defer func() { <-b.places[op] }()
	return call()
}

// Release waits for a place even after a cancellation: nobody else would close the file.
func (b *bounded) Release(cancel <-chan struct{}, in *fuse.ReleaseIn) {
	b.within(opRelease, nil, func() fuse.Status { b.RawFileSystem.Release(cancel, in); return fuse.OK })
}

func (b *bounded) ReleaseDir(in *fuse.ReleaseIn) {
	b.within(opReleasedir, nil, func() fuse.Status { b.RawFileSystem.ReleaseDir(in); return fuse.OK })
}

func (b *bounded) Lookup(cancel <-chan struct{}, header *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	return b.within(opLookup, cancel, func() fuse.Status { return b.RawFileSystem.Lookup(cancel, header, name, out) })
}

func (b *bounded) GetAttr(cancel <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	return b.within(opGetattr, cancel, func() fuse.Status { return b.RawFileSystem.GetAttr(cancel, in, out) })
}

func (b *bounded) SetAttr(cancel <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	return b.within(opSetattr, cancel, func() fuse.Status { return b.RawFileSystem.SetAttr(cancel, in, out) })
}

func (b *bounded) Mknod(cancel <-chan struct{}, in *fuse.MknodIn, name string, out *fuse.EntryOut) fuse.Status {
	return b.within(opMknod, cancel, func() fuse.Status { return b.RawFileSystem.Mknod(cancel, in, name, out) })
}

func (b *bounded) Mkdir(cancel <-chan struct{}, in *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	return b.within(opMkdir, cancel, func() fuse.Status { return b.RawFileSystem.Mkdir(cancel, in, name, out) })
}

func (b *bounded) Unlink(cancel <-chan struct{}, header *fuse.InHeader, name string) fuse.Status {
	return b.within(opUnlink, cancel, func() fuse.Status { return b.RawFileSystem.Unlink(cancel, header, name) })
}

func (b *bounded) Rmdir(cancel <-chan struct{}, header *fuse.InHeader, name string) fuse.Status {
	return b.within(opRmdir, cancel, func() fuse.Status { return b.RawFileSystem.Rmdir(cancel, header, name) })
}

func (b *bounded) Rename(cancel <-chan struct{}, in *fuse.RenameIn, from, to string) fuse.Status {
	return b.within(opRename, cancel, func() fuse.Status { return b.RawFileSystem.Rename(cancel, in, from, to) })
}

func (b *bounded) Link(cancel <-chan struct{}, in *fuse.LinkIn, name string, out *fuse.EntryOut) fuse.Status {
	return b.within(opLink, cancel, func() fuse.Status { return b.RawFileSystem.Link(cancel, in, name, out) })
}

func (b *bounded) Symlink(cancel <-chan struct{}, header *fuse.InHeader, target, name string, out *fuse.EntryOut) fuse.Status {
	return b.within(opSymlink, cancel, func() fuse.Status { return b.RawFileSystem.Symlink(cancel, header, target, name, out) })
}

func (b *bounded) Readlink(cancel <-chan struct{}, header *fuse.InHeader) (target []byte, status fuse.Status) {
	status = b.within(opReadlink, cancel, func() (s fuse.Status) {
		target, s = b.RawFileSystem.Readlink(cancel, header)
		return s
	})
	return target, status
}

func (b *bounded) Access(cancel <-chan struct{}, in *fuse.AccessIn) fuse.Status {
	return b.within(opAccess, cancel, func() fuse.Status { return b.RawFileSystem.Access(cancel, in) })
}

func (b *bounded) GetXAttr(cancel <-chan struct{}, header *fuse.InHeader, name string, value []byte) (n uint32, status fuse.Status) {
	status = b.within(opGetxattr, cancel, func() (s fuse.Status) {
		n, s = b.RawFileSystem.GetXAttr(cancel, header, name, value)
		return s
	})
	return n, status
}

func (b *bounded) ListXAttr(cancel <-chan struct{}, header *fuse.InHeader, names []byte) (n uint32, status fuse.Status) {
	status = b.within(opListxattr, cancel, func() (s fuse.Status) {
		n, s = b.RawFileSystem.ListXAttr(cancel, header, names)
		return s
	})
	return n, status
}

func (b *bounded) SetXAttr(cancel <-chan struct{}, in *fuse.SetXAttrIn, name string, value []byte) fuse.Status {
	return b.within(opSetxattr, cancel, func() fuse.Status { return b.RawFileSystem.SetXAttr(cancel, in, name, value) })
}

func (b *bounded) RemoveXAttr(cancel <-chan struct{}, header *fuse.InHeader, name string) fuse.Status {
	return b.within(opRemovexattr, cancel, func() fuse.Status { return b.RawFileSystem.RemoveXAttr(cancel, header, name) })
}

func (b *bounded) Create(cancel <-chan struct{}, in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	return b.within(opCreate, cancel, func() fuse.Status { return b.RawFileSystem.Create(cancel, in, name, out) })
}

func (b *bounded) Tmpfile(cancel <-chan struct{}, in *fuse.CreateIn, out *fuse.CreateOut) fuse.Status {
	return b.within(opTmpfile, cancel, func() fuse.Status { return b.RawFileSystem.Tmpfile(cancel, in, out) })
}

func (b *bounded) Open(cancel <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	return b.within(opOpen, cancel, func() fuse.Status { return b.RawFileSystem.Open(cancel, in, out) })
}

func (b *bounded) Read(cancel <-chan struct{}, in *fuse.ReadIn, p []byte) (r fuse.ReadResult, status fuse.Status) {
	status = b.within(opRead, cancel, func() (s fuse.Status) {
		r, s = b.RawFileSystem.Read(cancel, in, p)
		return s
	})
	return r, status
}

func (b *bounded) Lseek(cancel <-chan struct{}, in *fuse.LseekIn, out *fuse.LseekOut) fuse.Status {
	return b.within(opLseek, cancel, func() fuse.Status { return b.RawFileSystem.Lseek(cancel, in, out) })
}

func (b *bounded) GetLk(cancel <-chan struct{}, in *fuse.LkIn, out *fuse.LkOut) fuse.Status {
	return b.within(opGetlk, cancel, func() fuse.Status { return b.RawFileSystem.GetLk(cancel, in, out) })
}

func (b *bounded) SetLk(cancel <-chan struct{}, in *fuse.LkIn) fuse.Status {
	return b.within(opSetlk, cancel, func() fuse.Status { return b.RawFileSystem.SetLk(cancel, in) })
}

func (b *bounded) SetLkw(cancel <-chan struct{}, in *fuse.LkIn) fuse.Status {
	return b.within(opSetlkw, cancel, func() fuse.Status { return b.RawFileSystem.SetLkw(cancel, in) })
}

func (b *bounded) Write(cancel <-chan struct{}, in *fuse.WriteIn, p []byte) (n uint32, status fuse.Status) {
	status = b.within(opWrite, cancel, func() (s fuse.Status) {
		n, s = b.RawFileSystem.Write(cancel, in, p)
		return s
	})
	return n, status
}

// Writev leaves the work to Write, so a request waits once: this server passes one buffer.
func (b *bounded) Writev(<-chan struct{}, *fuse.WriteIn, [][]byte) (uint32, fuse.Status) {
	return 0, fuse.ENOSYS
}

func (b *bounded) CopyFileRange(cancel <-chan struct{}, in *fuse.CopyFileRangeIn) (n uint32, status fuse.Status) {
	status = b.within(opCopyFileRange, cancel, func() (s fuse.Status) {
		n, s = b.RawFileSystem.CopyFileRange(cancel, in)
		return s
	})
	return n, status
}

func (b *bounded) Ioctl(cancel <-chan struct{}, in *fuse.IoctlIn, p []byte, out *fuse.IoctlOut, q []byte) fuse.Status {
	return b.within(opIoctl, cancel, func() fuse.Status { return b.RawFileSystem.Ioctl(cancel, in, p, out, q) })
}

func (b *bounded) Flush(cancel <-chan struct{}, in *fuse.FlushIn) fuse.Status {
	return b.within(opFlush, cancel, func() fuse.Status { return b.RawFileSystem.Flush(cancel, in) })
}

func (b *bounded) Fsync(cancel <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	return b.within(opFsync, cancel, func() fuse.Status { return b.RawFileSystem.Fsync(cancel, in) })
}

func (b *bounded) Fallocate(cancel <-chan struct{}, in *fuse.FallocateIn) fuse.Status {
	return b.within(opFallocate, cancel, func() fuse.Status { return b.RawFileSystem.Fallocate(cancel, in) })
}

func (b *bounded) OpenDir(cancel <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	return b.within(opOpendir, cancel, func() fuse.Status { return b.RawFileSystem.OpenDir(cancel, in, out) })
}

func (b *bounded) ReadDir(cancel <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	return b.within(opReaddir, cancel, func() fuse.Status { return b.RawFileSystem.ReadDir(cancel, in, out) })
}

func (b *bounded) ReadDirPlus(cancel <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	return b.within(opReaddirplus, cancel, func() fuse.Status { return b.RawFileSystem.ReadDirPlus(cancel, in, out) })
}

func (b *bounded) FsyncDir(cancel <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	return b.within(opFsyncdir, cancel, func() fuse.Status { return b.RawFileSystem.FsyncDir(cancel, in) })
}

func (b *bounded) StatFs(cancel <-chan struct{}, header *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	return b.within(opStatfs, cancel, func() fuse.Status { return b.RawFileSystem.StatFs(cancel, header, out) })
}

func (b *bounded) Statx(cancel <-chan struct{}, in *fuse.StatxIn, out *fuse.StatxOut) fuse.Status {
	return b.within(opStatx, cancel, func() fuse.Status { return b.RawFileSystem.Statx(cancel, in, out) })
}
