package cryptfile

import (
	"errors"

	"golang.org/x/sys/unix"
)

// Exchange replaces f's descriptor by fd, open on the same file, and closes the old one. No other
// method of f may be under way. The error is an error of BACKING not yet reported by the old
// descriptor; from now on the same error is f's SyncFailure, unheard so far: writes were lost.
func (f *OSFile) Exchange(fd int) error {
	old := f.fd
	// Both descriptors are asked: the new one may have the error to report too, and would report
	// the error again later.
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

// InheritFailure makes the last SyncFailure of old, replaced by f, f's own: some handle may not
// have been told. No method of old may be under way.
func (f *OSFile) InheritFailure(old *OSFile) {
	if err := lost(old.fd); err != nil {
		old.failure.Store(&SyncFailure{Err: err})
	}
	f.failure.CompareAndSwap(nil, old.failure.Load())
}

// Unheard returns the SyncFailure that no caller has heard of, or nil. The kernel would keep such
// a failure for the next opener of the file; InheritUnheard passes the failure on.
func (f *OSFile) Unheard() *SyncFailure {
	if failure := f.failure.Load(); failure != nil && !failure.Heard() {
		return failure
	}
	return nil
}

// InheritUnheard makes failure, Unheard at the last close of the file, f's SyncFailure.
func (f *OSFile) InheritUnheard(failure *SyncFailure) {
	f.failure.CompareAndSwap(nil, failure)
}

// lost returns the kernel's report to a descriptor about lost writes, as fsync(2) would return
// the report, but without a write or a wait: the call concerns no page of the file.
func lost(fd int) error {
	const last = 1<<63 - 1<<12
	return restart(func() error { return unix.SyncFileRange(fd, last, 1, unix.SYNC_FILE_RANGE_WAIT_BEFORE) })
}
