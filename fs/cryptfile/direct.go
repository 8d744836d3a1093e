package cryptfile

import (
	"errors"
	"sync"
	"sync/atomic"
	"unsafe"

	"vmcryptfs/byname"

	"golang.org/x/sys/unix"
)

// direct is the way to a file around the page cache of BACKING, for a caller with a cache of its
// own (O_DIRECT). A request goes this way if BACKING permits, else through the page cache. Where
// BACKING has no such way, every request goes through the page cache.
//
// Both ways agree, although a page holds several units. The caller has a request's units alone
// (rangelock.Lock). The kernel writes dirty pages of the range before a direct read or write, and
// drops pages of the range around a write. A direct write and a buffered write of a file exclude
// each other from their first page to the last, since both are synchronous calls here; the
// exclusion is the inode's lock in ext4, XFS, btrfs and f2fs, the file systems that report an
// alignment. A direct write submitted without waiting could lose to a buffered write of the same
// page.
type direct struct {
	active atomic.Pointer[directFD] // nil: no user wants direct requests, or BACKING has none

	mu     sync.Mutex // guards the rest
	users  int
	probed bool
	file   *directFD // nil: none
}

// directFD is a descriptor opened O_DIRECT, with BACKING's requirements for requests.
type directFD struct {
	fd     int
	offset int64   // of offsets and lengths in bytes, a power of two
	memory uintptr // of buffers
}

// UseDirect counts a user of the file who wants the file kept out of BACKING's page cache, or
// takes one user back (-1). The first user makes UseDirect ask BACKING for its requirements.
func (f *OSFile) UseDirect(change int) {
	d := &f.direct
	d.mu.Lock()
	defer d.mu.Unlock()
	d.users += change
	d.use(f.fd)
}

// use opens the direct way for the users, by the file of fd. d.mu is held.
func (d *direct) use(fd int) {
	if d.users <= 0 {
		d.active.Store(nil)
		return
	}
	if !d.probed {
		d.probed = true
		d.file = openDirect(fd)
	}
	d.active.Store(d.file)
}

// renew replaces the direct descriptor after the file's descriptor became fd, with a right to
// write or without.
func (d *direct) renew(fd int) {
	d.close()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.probed = false
	d.use(fd)
}

func (d *direct) close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.active.Store(nil)
	if d.file != nil {
		unix.Close(d.file.fd) // written data is in the device, or was an error
		d.file = nil
	}
}

// openDirect opens the file of fd once more, or returns nil. Requirements unknown to BACKING
// (tmpfs, overlay, kernels before 6.1) are not guessed.
func openDirect(fd int) *directFD {
	var st unix.Statx_t
	err := unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_DIOALIGN, &st)
	offset, memory := st.Dio_offset_align, st.Dio_mem_align
	if err != nil || st.Mask&unix.STATX_DIOALIGN == 0 || offset == 0 || memory == 0 {
		return nil
	}
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err != nil {
		return nil
	}
	flags = flags&(unix.O_ACCMODE|unix.O_APPEND) | unix.O_DIRECT | unix.O_NONBLOCK | unix.O_CLOEXEC
	again, err := byname.Reopen(fd, flags)
	if err != nil {
		return nil
	}
	return &directFD{fd: again, offset: int64(offset), memory: uintptr(memory)}
}

// takes reports whether BACKING permits a direct read or write of p at off.
func (d *directFD) takes(p []byte, off int64) bool {
	at := uintptr(unsafe.Pointer(unsafe.SliceData(p)))
	return d != nil && (off|int64(len(p)))&(d.offset-1) == 0 && at&(d.memory-1) == 0
}

// refused reports whether BACKING turned down a direct request that met the requirements; such a
// request then goes through the page cache.
func refused(err error) bool { return errors.Is(err, unix.EINVAL) }
