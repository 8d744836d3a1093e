package cryptfile

import (
	"golang.org/x/sys/unix"

	"vmcryptfs/byname"
)

// CountReads makes ReadAt leave access times from now on, by the rules of BACKING's mount
// (relatime, noatime, …). A descriptor opened O_NOATIME leaves none before.
func (f *OSFile) CountReads() {
	if f.counts.Swap(true) {
		return
	}
	// On failure access times stay unchanged: no reason to refuse the file.
	if flags, err := unix.FcntlInt(uintptr(f.fd), unix.F_GETFL, 0); err == nil && flags&unix.O_NOATIME != 0 {
		_, _ = unix.FcntlInt(uintptr(f.fd), unix.F_SETFL, flags&^unix.O_NOATIME)
	}
}

// PeekAt is ReadAt without an access time, by a descriptor of its own once reads count. The
// descriptor is opened at the first need: a disk whose guest writes whole units has none.
func (f *OSFile) PeekAt(p []byte, off int64) (int, error) {
	return readAt(f.peekFD(), p, off)
}

func (f *OSFile) peekFD() int {
	if fd := f.peek.Load(); fd != 0 {
		return int(fd)
	}
	if !f.counts.Load() {
		return f.fd
	}
	const flags = unix.O_RDONLY | unix.O_NOATIME | unix.O_NONBLOCK | unix.O_CLOEXEC
	fd, err := byname.Reopen(f.fd, flags)
	if err != nil { // not ours (EPERM), or no descriptor left: content before times
		return f.fd
	}
	if !f.peek.CompareAndSwap(0, int64(fd)) {
		unix.Close(fd)
	}
	return int(f.peek.Load())
}
