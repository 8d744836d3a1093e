package cryptfile

import (
	"errors"
	"strconv"
	"sync"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// direct is the way to a file around the page cache of BACKING, for a caller that caches
// by itself (O_DIRECT). It is taken by requests that BACKING permits it for; the others
// go through the page cache, and so does everything where there is no such way.
//
// The two do not contradict each other. Who calls here has the units of a request for
// himself (rangelock.Lock), but a page holds several. The kernel writes dirty pages of the
// range before a direct read or write, and drops those of the range around a write; and
// a direct write and a buffered one of a file exclude each other from their first page
// to the last (the inode's lock in ext4, XFS, btrfs and f2fs, which are those that tell
// an alignment), since both are synchronous calls here. A direct write that were
// submitted and not waited for could lose to a buffered one of the same page.
type direct struct {
	active atomic.Pointer[directFD] // nil: nobody wants it, or BACKING has none

	mu     sync.Mutex // guards the rest
	users  int
	probed bool
	file   *directFD // nil: none
}

// directFD is a descriptor opened O_DIRECT, and what BACKING asks of requests by it.
type directFD struct {
	fd     int
	offset int64   // of offsets and lengths in bytes, a power of two
	memory uintptr // of buffers
}

// UseDirect counts a user of the file who does not want it in BACKING's page cache, or
// takes one back (-1). For the first one BACKING is asked what it permits.
func (f *OSFile) UseDirect(change int) {
	d := &f.direct
	d.mu.Lock()
	defer d.mu.Unlock()
	d.users += change
	d.use(f.fd)
}

// use opens the way for those who want it, by the file of fd. d.mu is held.
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

// renew is for a file whose descriptor became fd, which may write or not.
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
		unix.Close(d.file.fd) // what was written is in the device, or was an error
		d.file = nil
	}
}

// openDirect opens the file of fd once more, or nil. What BACKING does not say (tmpfs,
// overlay, kernels before 6.1) is not guessed.
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
	again, err := unix.Open("/proc/self/fd/"+strconv.Itoa(fd), flags, 0)
	if err != nil {
		return nil
	}
	return &directFD{fd: again, offset: int64(offset), memory: uintptr(memory)}
}

// takes tells if BACKING permits a direct read or write of p at off.
func (d *directFD) takes(p []byte, off int64) bool {
	at := uintptr(unsafe.Pointer(unsafe.SliceData(p)))
	return d != nil && (off|int64(len(p)))&(d.offset-1) == 0 && at&(d.memory-1) == 0
}

// refused tells if BACKING turned down a direct request that should have suited it: that
// goes through the page cache then.
func refused(err error) bool { return errors.Is(err, unix.EINVAL) }
