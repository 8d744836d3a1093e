package fs

import (
	"errors"
	"math"

	"vmcryptfs/fs/backing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

const (
	copyBuffer = 1 << 20  // bytes copied at once through memory
	copyMost   = 16 << 20 // bytes copied by one request, which cannot be interrupted
)

// CopyFileRange copies between two files: in BACKING where both are cleartext, else through memory,
// decrypting and encrypting. CopyFileRange may copy fewer bytes than the request names.
func (r raw) CopyFileRange(cancel <-chan struct{}, in *fuse.CopyFileRangeIn) (uint32, fuse.Status) {
	from, to := r.handles.get(in.FhIn), r.handles.get(in.FhOut)
	if from == nil || to == nil || from.dir != nil || to.dir != nil {
		return 0, fuse.EBADF
	}
	if in.Flags != 0 || in.OffIn > math.MaxInt64 {
		return 0, fuse.EINVAL
	}
	if in.OffOut > math.MaxInt64-copyMost {
		return 0, fuse.Status(unix.EFBIG)
	}
	if in.Uid != 0 {
		if err := r.killPrivileges(to.node, &in.InHeader); err != nil {
			return 0, r.status(ofNode("copy_file_range", to.node), err)
		}
	}
	size := min(in.Len, copyMost)
	offIn, offOut := int64(in.OffIn), int64(in.OffOut)
	n, err := r.copyInBacking(from.node, to.node, offIn, offOut, int(size), in.Caller)
	if errors.Is(err, errThroughMemory) {
		n, err = r.copyThroughMemory(cancel, from.node, to.node, offIn, offOut, int(size), in.Caller)
	}
	if n > 0 {
		return uint32(n), fuse.OK
	}
	return 0, r.status(request{"copy_file_range", from.node.In(""), to.node.In("")}, err)
}

// errThroughMemory: the kernel cannot, or must not, copy these bytes in BACKING.
var errThroughMemory = errors.New("to be copied through memory")

// copyInBacking lets the kernel copy, perhaps by sharing blocks, from clear to clear. Other copies
// go through memory (errThroughMemory): so do bytes for the place where the magic of an encrypted
// file would stand, and bytes for a descriptor, whose new text is judged before a write.
func (f *FS) copyInBacking(from, to *node, offIn, offOut int64, size int, by fuse.Caller) (int, error) {
	first, second := inOrder(from, to)
	first.Mu.RLock()
	defer first.Mu.RUnlock()
	if first != second {
		second.Mu.RLock()
		defer second.Mu.RUnlock()
	}
	if from.file == nil || to.file == nil {
		return 0, unix.EBADF
	}
	if !from.file.InClear() || !to.file.InClear() || to.file.Form == backing.Descriptor || from.file.Form == backing.Empty {
		return 0, errThroughMemory
	}
	if to.file.Can.Append { // a caller with O_APPEND still set is refused by the kernel itself
		return 0, unix.EPERM
	}
	to.wrote()
	var n int
	err := f.charge(&to.Inode, to.FD(), by, int64(size), func() (err error) {
		n, err = to.file.CopyFrom(from.file, offIn, offOut, size)
		return err
	})
	if errors.Is(err, unix.EXDEV) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EINVAL) {
		return 0, errThroughMemory
	}
	return n, err
}

func (f *FS) copyThroughMemory(cancel <-chan struct{}, from, to *node, offIn, offOut int64, size int, by fuse.Caller) (int, error) {
	buf := f.copying.Get().(*[copyBuffer]byte)
	defer f.copying.Put(buf)
	done := 0
	for done < size {
		n, err := from.read(buf[:min(copyBuffer, size-done)], offIn+int64(done), false)
		if err != nil || n == 0 {
			return done, err
		}
		written, err := f.write(cancel, to, buf[:n], offOut+int64(done), 0, by)
		done += written
		if err != nil || written < n {
			return done, err
		}
	}
	return done, nil
}
