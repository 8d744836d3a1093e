package datastore

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// lockName is the file in BACKING/.vmcryptfs that a mount holds flocked. It stays
// when the lock is released: removing it would let two processes lock two files.
const lockName = "lock"

// lock takes the exclusive lock, without waiting: ErrBusy. On a file system that is
// read-only and never had the file, there is nothing to exclude.
func (s *Store) lock() error {
	if s.locked {
		return nil
	}
	// For reading, so that BACKING can be remounted read-only while nothing is written.
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
	s.signLock()
	return nil
}

// unlock releases the lock, if held.
func (s *Store) unlock() {
	if s.lockFd >= 0 {
		// A child that is being started may have a copy of the descriptor until its exec.
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
	if errors.Is(err, unix.EWOULDBLOCK) {
		return -1, fmt.Errorf("%w%s", ErrBusy, holder(fd))
	}
	return -1, &os.PathError{Op: "lock", Path: lockName, Err: err}
}

const lockFlags = unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_CLOEXEC

// openLock opens the lock file, made if it is not there; -1 if it cannot be.
func openLock(dir, access int) (int, error) {
	fd, err := unix.Openat(dir, lockName, access|unix.O_CREAT|lockFlags, 0o644)
	if errors.Is(err, unix.EROFS) {
		fd, err = unix.Openat(dir, lockName, unix.O_RDONLY|lockFlags, 0)
		if errors.Is(err, unix.ENOENT) {
			return -1, nil
		}
	}
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: lockName, Err: err}
	}
	return fd, nil
}

// signLock writes into the lock file who holds it, for holder. The lock holds
// without: nothing is lost where this fails.
func (s *Store) signLock() {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	line := fmt.Sprintf("%d %s\n", os.Getpid(), host)
	fd, err := unix.Openat(s.dir, lockName, unix.O_WRONLY|lockFlags, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	if unix.Ftruncate(fd, 0) == nil {
		unix.Pwrite(fd, []byte(line), 0)
	}
}

// holder tells in an error who holds the lock, as far as the file says.
func holder(fd int) string {
	b := make([]byte, 256)
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
