package datastore

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"vmcryptfs/byname"
)

// lockName is the file in BACKING/.vmcryptfs flocked by a mount. The file stays when the lock is
// released: with the file removed, two processes could lock two files.
const lockName = "lock"

// lock takes the exclusive lock, without waiting: ErrBusy. A read-only file system that never had
// the file leaves nothing to exclude.
func (s *Store) lock() error {
	if s.locked {
		return nil
	}
	// Opened for reading, so BACKING can be remounted read-only while nothing is written.
	fd, err := tryLock(s.dir, unix.O_RDONLY)
	if errors.Is(err, unix.EBADF) { // NFS makes an exclusive flock a write lock of the range
		fd, err = tryLock(s.dir, unix.O_RDWR)
	}
	if err != nil {
		return err
	}
	if fd < 0 {
		s.locked = true
		return nil
	}
	s.lockFd, s.locked = fd, true
	if s.mayWriteLock() {
		signLock(fd)
	}
	return nil
}

// Exclusive reports whether this Store was opened with the lock, and has the lock: nobody else
// serves BACKING.
func (s *Store) Exclusive() bool { return s.exclusive }

// unlock releases the lock, if held.
func (s *Store) unlock() {
	if s.lockFd >= 0 {
		// A child process just starting may have a copy of the descriptor until its exec.
		unix.Flock(s.lockFd, unix.LOCK_UN)
		unix.Close(s.lockFd)
	}
	s.lockFd, s.locked = -1, false
}

// tryLock opens and locks the lock file; -1 if there is none and none can be made.
func tryLock(dir, access int) (int, error) {
	fd, err := openLock(dir, access)
	if err != nil || fd < 0 {
		return fd, err
	}
	err = unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB)
	if err == nil {
		return fd, nil
	}
	defer unix.Close(fd)
	if errors.Is(err, unix.EWOULDBLOCK) || errors.Is(err, unix.EACCES) { // POSIX has both for a conflict
		return -1, fmt.Errorf("%w%s", ErrBusy, holder(fd))
	}
	return -1, &os.PathError{Op: "lock", Path: lockName, Err: err}
}

// openLock opens the lock file, or makes a missing one; -1 if making fails. Another kind of file
// at the name is a *byname.UnfitError: two programs could lock two files, and the attacker may
// want the file overwritten.
func openLock(dir, access int) (int, error) {
	fd, st, err := byname.OpenOrMake(dir, lockName, access, 0o644)
	if errors.Is(err, unix.EROFS) {
		fd, st, err = byname.Open(dir, lockName, unix.O_RDONLY)
		if errors.Is(err, unix.ENOENT) {
			return -1, nil
		}
	}
	if err == nil {
		if err = byname.Single(&st); err != nil {
			unix.Close(fd)
		}
	}
	if _, ok := errors.AsType[*byname.UnfitError](err); ok {
		err = fmt.Errorf("%s/%s is %w: somebody put it in the place of the lock file; remove it while nothing has the datastore mounted, and the next mount makes the lock file anew", Dir, lockName, err)
	}
	if err != nil {
		return -1, err
	}
	return fd, nil
}

// mayWriteLock reports whether the lock file is surely this program's: nobody else may write the
// directory, this user or root owns directory and file, and the file's content has the form
// written by signLock. (An attacker able to write only BACKING can give the name of Dir to a
// directory with a file called lock.) Elsewhere the lock excludes all the same, without naming
// the holder: on file systems that show every file as anybody's, and in a datastore of another
// user.
func (s *Store) mayWriteLock() bool {
	var dir, file unix.Stat_t
	if unix.Fstat(s.dir, &dir) != nil || unix.Fstat(s.lockFd, &file) != nil {
		return false
	}
	return byname.Private(&dir) && byname.Owned(&file) == nil && byname.Single(&file) == nil &&
		(file.Size == 0 || file.Size <= maxLock && holder(s.lockFd) != "")
}

// signLock writes the holder into the lock file open as fd, for holder to read. The lock works
// without the text, so a failure loses nothing.
func signLock(fd int) {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	line := fmt.Sprintf("%d %s\n", os.Getpid(), host)
	if fd, err = byname.Reopen(fd, unix.O_WRONLY|unix.O_NONBLOCK); err != nil {
		return
	}
	defer unix.Close(fd)
	if unix.Ftruncate(fd, 0) == nil {
		unix.Pwrite(fd, []byte(line), 0)
	}
}

// maxLock bounds the content of a lock file in bytes.
const maxLock = 256

// holder returns text for an error that names the lock's holder, as far as the file tells.
func holder(fd int) string {
	b := make([]byte, maxLock)
	n, err := unix.Pread(fd, b, 0)
	if err != nil {
		return ""
	}
	pid, host, ok := strings.Cut(strings.TrimSpace(string(b[:n])), " ")
	if _, err := strconv.ParseUint(pid, 10, 32); err != nil || !ok {
		return ""
	}
	return fmt.Sprintf(" (process %s on host %q)", pid, host)
}
