// Package byname opens a file at a name that another user may have given to another file: in
// BACKING, beside the output of an export, in a directory named by an environment variable.
//
// A name is looked up once, by a descriptor that opens nothing (open(2), O_PATH). The inode is
// judged by that descriptor, and the same inode is then opened. So no symbolic link is followed,
// no pipe makes the program wait, and no device sees an open, which may rewind a tape or start a
// watchdog.
//
// Replace puts a file of this program at a name, whatever lies there, and Fresh makes a name that
// nobody has.
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

// UnfitError is the fault of a file found at a name reserved for a regular file of this program.
type UnfitError struct{ Why string }

func (e *UnfitError) Error() string { return e.Why }

// Open opens the regular file name in dir with flags: an access mode and flags valid with one.
// Anything but a regular file gives an *UnfitError. The status returned is that of the opened
// file. The caller closes the descriptor.
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
	// Without O_NONBLOCK, an open would wait for a lease of the file's owner to end.
	fd, err := Reopen(path, flags|unix.O_NONBLOCK)
	if err != nil {
		return -1, st, &os.PathError{Op: "open", Path: name, Err: err}
	}
	return fd, st, nil
}

// kind names, in words, a file type other than regular.
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

// OpenOrMake is Open, and makes a file where the name is free: empty, with permissions perm less
// the umask.
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

// ProcPath names what fd is open on, for calls that take no O_PATH descriptor. The kernel follows
// the path straight to the inode, also of a symbolic link, whatever name the inode has by now.
func ProcPath(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

// Reopen opens the inode of fd with flags, whatever name the inode has by now. fd may be an
// O_PATH descriptor.
func Reopen(fd, flags int) (int, error) {
	for {
		again, err := unix.Open(ProcPath(fd), flags|unix.O_CLOEXEC, 0)
		if !errors.Is(err, unix.EINTR) { // the open of a pipe waits for the other end
			return again, err
		}
	}
}

// Single returns an *UnfitError for a file with more than one name: a write to such a file is a
// write to another user's file.
func Single(st *unix.Stat_t) error {
	if st.Nlink > 1 {
		return &UnfitError{fmt.Sprintf("a file with %d names", st.Nlink)}
	}
	return nil
}

// Owned returns an *UnfitError for a file owned neither by this user nor by root.
func Owned(st *unix.Stat_t) error {
	if !trusted(st) {
		return &UnfitError{fmt.Sprintf("a file of user %d", st.Uid)}
	}
	return nil
}

// trusted reports whether the owner is root or this user, who control this process anyway.
func trusted(st *unix.Stat_t) bool { return st.Uid == 0 || int(st.Uid) == os.Geteuid() }
