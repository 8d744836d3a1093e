package cryptfile

import (
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// OSFile is a Backing over a file descriptor owned by the OSFile. Calls cut off by a signal
// (EINTR) or left short by the file system are continued.
type OSFile struct {
	fd     int          // changes by Exchange alone
	peek   atomic.Int64 // descriptor for PeekAt, opened at need; 0: fd
	counts atomic.Bool  // reads leave an access time
	direct direct
	closed atomic.Bool

	syncing sync.RWMutex // shared by each Sync under way
	failure atomic.Pointer[SyncFailure]
	report  *OSFile // nil: none; set before use
}

// SyncFailure is a Sync refused by BACKING, or a refused durable write. Safe for concurrent use.
type SyncFailure struct {
	Err   error
	heard atomic.Bool // somebody was told
}

// Hear records that a caller is told.
func (s *SyncFailure) Hear() { s.heard.Store(true) }

// Heard reports whether some caller was told. An opener of the file before that must be told,
// too.
func (s *SyncFailure) Heard() bool { return s.heard.Load() }

var (
	_ Backing   = (*OSFile)(nil)
	_ Peeker    = (*OSFile)(nil)
	_ Refresher = (*OSFile)(nil)
)

// NewOSFile takes over fd.
func NewOSFile(fd int) *OSFile { return &OSFile{fd: fd} }

// Fd returns the descriptor, for uses beyond this package (attributes, locks). The OSFile closes
// the descriptor; Fd must not be used afterwards.
func (f *OSFile) Fd() int { return f.fd }

// ReadAt is pread, until p is full or the file ends.
func (f *OSFile) ReadAt(p []byte, off int64) (int, error) {
	d := f.direct.active.Load()
	if !d.takes(p, off) {
		return readAt(f.fd, p, off)
	}
	// A short read, by the end of the file, mostly ends where no direct read may begin.
	done, err := pread(d.fd, p, off)
	if err != nil && !refused(err) || done == len(p) {
		return done, err
	}
	n, err := readAt(f.fd, p[done:], off+int64(done))
	return done + n, err
}

// pread is pread(2), repeated after every signal; with an error the count is 0.
func pread(fd int, p []byte, off int64) (int, error) {
	for {
		n, err := unix.Pread(fd, p, off)
		if err != unix.EINTR {
			return max(n, 0), err
		}
	}
}

func readAt(fd int, p []byte, off int64) (int, error) {
	done := 0
	for done < len(p) {
		n, err := pread(fd, p[done:], off+int64(done))
		switch {
		case err != nil:
			return done, err
		case n == 0:
			return done, nil
		}
		done += n
	}
	return done, nil
}

// WriteAt is pwrite, until all of p is written or the file system refuses.
func (f *OSFile) WriteAt(p []byte, off int64, d Durability) (int, error) {
	done := 0
	for done < len(p) {
		n, err := f.pwriteBest(p[done:], off+int64(done), d)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return done, err
		case n == 0: // no kernel does this; a retry would loop for ever
			return done, unix.EIO
		}
		done += n
	}
	return done, nil
}

// pwriteBest is one direct or buffered write.
func (f *OSFile) pwriteBest(p []byte, off int64, d Durability) (int, error) {
	direct := f.direct.active.Load()
	if !direct.takes(p, off) {
		return f.pwrite(f.fd, p, off, d)
	}
	n, err := f.pwrite(direct.fd, p, off, d)
	if refused(err) {
		return f.pwrite(f.fd, p, off, d)
	}
	return n, err
}

// pwrite is one pwrite(2), or pwritev2(2) with the flag for d; where BACKING does not
// know the flag, a write and a sync.
func (f *OSFile) pwrite(fd int, p []byte, off int64, d Durability) (int, error) {
	var flag int
	switch d {
	case Volatile:
		return unix.Pwrite(fd, p, off)
	case Data:
		flag = unix.RWF_DSYNC
	default:
		flag = unix.RWF_SYNC
	}
	n, err := unix.Pwritev2(fd, [][]byte{p}, off, flag)
	if fd == f.fd && (err == unix.EIO || err == unix.ENOSPC || err == unix.EDQUOT) {
		f.failed(err) // of this write, or of another writer's data: the kernel does not say which
	}
	if err != unix.EOPNOTSUPP && err != unix.ENOSYS {
		return n, err
	}
	if n, err = unix.Pwrite(fd, p, off); err != nil {
		return n, err
	}
	return n, f.Sync(d)
}

// Truncate is ftruncate.
func (f *OSFile) Truncate(size int64) error {
	return restart(func() error { return unix.Ftruncate(f.fd, size) })
}

// Sync is fdatasync or fsync. The kernel reports lost data once to a descriptor, and the next
// Sync succeeds: SyncFailure passes the report to every user of the descriptor.
func (f *OSFile) Sync(d Durability) error {
	err := f.sync(d)
	// One of several concurrent calls is told: its record is there when the others return.
	f.syncing.Lock()
	defer f.syncing.Unlock()
	return err
}

func (f *OSFile) sync(d Durability) error {
	f.syncing.RLock()
	defer f.syncing.RUnlock()
	call := unix.Fdatasync
	if d == Full {
		call = unix.Fsync
	}
	err := restart(func() error { return call(f.fd) })
	if err != nil {
		f.failed(err)
	}
	return err
}

// failed records a failure reported to the caller.
func (f *OSFile) failed(err error) {
	failure := &SyncFailure{Err: err}
	failure.Hear()
	f.failure.Store(failure)
	if f.report != nil {
		f.report.failure.Store(failure)
	}
}

// ReportTo makes every later SyncFailure of f one of other, too: both are halves of one file, whose
// users ask other. ReportTo is called before any other method is under way.
func (f *OSFile) ReportTo(other *OSFile) { f.report = other }

// SyncFailure is the last one, or nil.
func (f *OSFile) SyncFailure() *SyncFailure { return f.failure.Load() }

// Refresh drops clean pages in the range whose whole folio lies in the range, unless a process
// has mapped them: posix_fadvise(2).
func (f *OSFile) Refresh(off, n int64) error {
	return restart(func() error { return unix.Fadvise(f.fd, off, n, unix.FADV_DONTNEED) })
}

// BeginWriteback begins to store the dirty pages of a range, and waits for none:
// sync_file_range(2). A refusal is met by the next Sync.
func (f *OSFile) BeginWriteback(off, n int64) {
	_ = restart(func() error { return unix.SyncFileRange(f.fd, off, n, unix.SYNC_FILE_RANGE_WRITE) })
}

// Fallocate is fallocate(2).
func (f *OSFile) Fallocate(mode uint32, off, n int64) error {
	return restart(func() error { return unix.Fallocate(f.fd, mode, off, n) })
}

// Seek is lseek(2).
func (f *OSFile) Seek(off int64, whence int) (int64, error) {
	return unix.Seek(f.fd, off, whence)
}

// Size is st_size.
func (f *OSFile) Size() (int64, error) {
	var st unix.Stat_t
	if err := restart(func() error { return unix.Fstat(f.fd, &st) }); err != nil {
		return 0, err
	}
	return st.Size, nil
}

// Close closes the descriptor; idempotent. Like close(2), Close is not restarted: Linux has
// released the descriptor even after EINTR.
func (f *OSFile) Close() error {
	if f.closed.Swap(true) {
		return nil
	}
	f.direct.close()
	if fd := f.peek.Swap(0); fd > 0 {
		unix.Close(int(fd)) // nothing was written by this descriptor
	}
	return unix.Close(f.fd)
}

func restart(call func() error) error {
	for {
		if err := call(); err != unix.EINTR {
			return err
		}
	}
}
