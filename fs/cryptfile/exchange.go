package cryptfile

import (
	"errors"

	"golang.org/x/sys/unix"
)

// Exchange takes over fd, which is open on the same file, in the place of the descriptor that f
// has, and closes that. No other method of f is under way. An error is one of BACKING that the
// old descriptor had not told yet, and SyncFailure from now on, which nobody heard: writes that
// were lost.
func (f *OSFile) Exchange(fd int) error {
	old := f.fd
	// Both are asked, for the new one may have it to tell too, and would tell it again.
	err := errors.Join(lost(old), lost(fd))
	f.fd = fd
	f.direct.renew(fd)
	if peek := f.peek.Swap(0); peek > 0 { // by the old one's name, where BACKING goes by names
		unix.Close(int(peek))
	}
	if f.counts.Swap(false) {
		f.CountReads()
	}
	err = errors.Join(err, unix.Close(old))
	if err != nil {
		f.failure.Store(&SyncFailure{Err: err})
	}
	return err
}

// InheritFailure makes the last SyncFailure of old, which f takes the place of, f's: not every
// handle has been told yet. No method of old is under way.
func (f *OSFile) InheritFailure(old *OSFile) {
	if err := lost(old.fd); err != nil {
		old.failure.Store(&SyncFailure{Err: err})
	}
	f.failure.CompareAndSwap(nil, old.failure.Load())
}

// Unheard is the SyncFailure that nobody heard of, or nil. It is what the kernel keeps for the next
// who opens the file; InheritUnheard gives it to him.
func (f *OSFile) Unheard() *SyncFailure {
	if failure := f.failure.Load(); failure != nil && !failure.Heard() {
		return failure
	}
	return nil
}

// InheritUnheard makes what was Unheard when the file was closed last f's SyncFailure.
func (f *OSFile) InheritUnheard(failure *SyncFailure) {
	f.failure.CompareAndSwap(nil, failure)
}

// lost is what the kernel has to tell a descriptor of writes that were lost, as fsync(2) would
// tell it, with nothing written and nothing waited for: it looks at no page that a file has.
func lost(fd int) error {
	const last = 1<<63 - 1<<12
	return restart(func() error { return unix.SyncFileRange(fd, last, 1, unix.SYNC_FILE_RANGE_WAIT_BEFORE) })
}
