package powerloss

import (
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"vmcryptfs/fs/cryptfile"
)

// direct is how every file is opened.
const direct = fuse.FOPEN_DIRECT_IO | fuse.FOPEN_PARALLEL_DIRECT_WRITES

func (r raw) Open(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	return r.request(in.NodeId, "", "", func(i *inode) error {
		out.OpenFlags = direct
		if in.Flags&unix.O_TRUNC != 0 { // the kernel sends the truncation apart
			return unix.EINVAL
		}
		return nil
	})
}

func (r raw) Flush(<-chan struct{}, *fuse.FlushIn) fuse.Status { return fuse.OK }

func (r raw) Read(_ <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	n := 0
	status := r.request(in.NodeId, Read, "", func(i *inode) (err error) {
		n, err = i.file.ReadAt(buf, int64(in.Offset))
		return err
	})
	return fuse.ReadResultData(buf[:n]), status
}

func (r raw) Write(_ <-chan struct{}, in *fuse.WriteIn, p []byte) (uint32, fuse.Status) {
	n := 0
	status := r.request(in.NodeId, Write, "", func(i *inode) (err error) {
		switch {
		case in.Flags&unix.O_SYNC == unix.O_SYNC:
			i.syncs.FsyncWrites++
		case in.Flags&unix.O_DSYNC != 0:
			i.syncs.DsyncWrites++
		default:
			i.syncs.PlainWrites++
		}
		durable := r.durability(in.Flags)
		i.mtime = time.Now()
		if n, err = i.file.WriteAt(p, int64(in.Offset), durable); err == nil && durable != cryptfile.Volatile && r.options.Journal {
			r.names.syncAll()
		}
		return err
	})
	return uint32(n), status
}

func (r raw) Fsync(_ <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	return r.request(in.NodeId, Fsync, "", func(i *inode) error {
		i.countSync(in)
		return r.sync(i)
	})
}

func (r raw) Fallocate(_ <-chan struct{}, in *fuse.FallocateIn) fuse.Status {
	return r.request(in.NodeId, Fallocate, "", func(i *inode) error {
		return i.file.Fallocate(in.Mode, int64(in.Offset), int64(in.Length))
	})
}

func (r raw) Lseek(_ <-chan struct{}, in *fuse.LseekIn, out *fuse.LseekOut) fuse.Status {
	return r.request(in.NodeId, "", "", func(i *inode) error {
		off, err := i.file.Seek(int64(in.Offset), int(in.Whence))
		out.Offset = uint64(off)
		return err
	})
}
