// Package byname opens what lies at a name that somebody else may have given to another
// file: in BACKING, beside the output of an export, in a directory that an environment
// variable names.
//
// A name is looked up once, by a descriptor that opens nothing (O_PATH). What lies there
// is judged by that descriptor, and the very inode that was judged is opened. So no
// symbolic link is followed, no pipe is waited for, and no device sees an open, which may
// rewind a tape or start a watchdog.
//
// Safe for concurrent use. /proc must be mounted.
package byname

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// UnfitError says what lies at a name where a regular file of this program belongs.
type UnfitError struct{ Why string }

func (e *UnfitError) Error() string { return e.Why }

// Open opens the regular file name in dir with flags, an access mode and what goes with
// it. Anything else that has the name is an *UnfitError. The status is of the file that
// was opened; the caller closes the descriptor.
func Open(dir int, name string, flags int) (int, unix.Stat_t, error) {
	var st unix.Stat_t
	path, err := unix.Openat(dir, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, st, &os.PathError{Op: "open", Path: name, Err: err}
	}
	defer unix.Close(path)
	if err := unix.Fstat(path, &st); err != nil {
		return -1, st, &os.PathError{Op: "stat", Path: name, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return -1, st, &UnfitError{kind(st.Mode) + ", no regular file"}
	}
	// O_NONBLOCK: the owner of a file may have a lease on it, which an open waits for.
	fd, err := Reopen(path, flags|unix.O_NONBLOCK)
	if err != nil {
		return -1, st, &os.PathError{Op: "open", Path: name, Err: err}
	}
	return fd, st, nil
}

// kind is in words what no regular file is.
func kind(mode uint32) string {
	switch mode & unix.S_IFMT {
	case unix.S_IFLNK:
		return "a symbolic link"
	case unix.S_IFDIR:
		return "a directory"
	case unix.S_IFIFO:
		return "a named pipe"
	case unix.S_IFSOCK:
		return "a socket"
	}
	return "a device"
}

// tries bounds how often a name may come and go while OpenOrMake looks.
const tries = 10

// OpenOrMake is Open of a file that is made, empty and with permissions perm less the
// umask, where nothing has the name.
func OpenOrMake(dir int, name string, flags int, perm uint32) (fd int, st unix.Stat_t, err error) {
	for range tries {
		fd, st, err = Open(dir, name, flags)
		if !errors.Is(err, unix.ENOENT) {
			return fd, st, err
		}
		const fresh = unix.O_CREAT | unix.O_EXCL | unix.O_CLOEXEC // follows no link either
		fd, err = unix.Openat(dir, name, flags|fresh, perm)
		if err == nil {
			break
		}
		if err = (&os.PathError{Op: "create", Path: name, Err: err}); !errors.Is(err, unix.EEXIST) {
			return -1, st, err
		}
	}
	if err != nil {
		return -1, st, err
	}
	if err := unix.Fstat(fd, &st); err != nil {
		unix.Close(fd)
		return -1, st, &os.PathError{Op: "stat", Path: name, Err: err}
	}
	return fd, st, nil
}

// Reopen opens the inode of fd with flags, whatever its name is by now. fd may be one
// that opens nothing (O_PATH).
func Reopen(fd, flags int) (int, error) {
	for {
		again, err := unix.Open("/proc/self/fd/"+strconv.Itoa(fd), flags|unix.O_CLOEXEC, 0)
		if !errors.Is(err, unix.EINTR) { // the open of a pipe waits for its other end
			return again, err
		}
	}
}

// Single tells in an *UnfitError that a file has more names than the one it was opened
// by: what is written into such a file is written into somebody's other file.
func Single(st *unix.Stat_t) error {
	if st.Nlink > 1 {
		return &UnfitError{fmt.Sprintf("a file with %d names", st.Nlink)}
	}
	return nil
}

// Owned tells in an *UnfitError that a file is neither this user's nor root's.
func Owned(st *unix.Stat_t) error {
	if !trusted(st) {
		return &UnfitError{fmt.Sprintf("a file of user %d", st.Uid)}
	}
	return nil
}

// trusted tells if the owner may do to this process what he likes anyway.
func trusted(st *unix.Stat_t) bool { return st.Uid == 0 || int(st.Uid) == os.Geteuid() }
