package byname

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// othersWrite are the permission bits by which users other than the owner change a directory.
// Under an ACL, the group's bits bound the rights of every other user.
const othersWrite = 0o022

// PrivateDir opens the directory at path. The directory must be private: owned by this user or
// root, and writable for nobody else. Names below the descriptor then belong to this program,
// wherever path leads later. The caller closes the directory.
func PrivateDir(path string) (*os.File, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open directory", Path: path, Err: err}
	}
	dir := os.NewFile(uintptr(fd), path)
	if err := private(fd, path); err != nil {
		dir.Close()
		return nil, err
	}
	return dir, nil
}

// MakePrivateDir is PrivateDir and makes a missing directory, with its parents, with permissions
// perm less the umask.
func MakePrivateDir(path string, perm os.FileMode) (*os.File, error) {
	if err := os.MkdirAll(path, perm); err != nil {
		return nil, err
	}
	return PrivateDir(path)
}

// MakePrivatePath is MakePrivateDir for callers that open files below a path rather than below a
// descriptor. The returned path contains no symbolic link, and only this user and root can make
// the path lead elsewhere later. Every directory on the way is owned by this user or root. Other
// users may not write such a directory, unless the sticky bit protects names from other users; a
// user other than root may let the group write, as by umask 002.
func MakePrivatePath(path string, perm os.FileMode) (string, error) {
	dir, err := MakePrivateDir(path, perm)
	if err != nil {
		return "", err
	}
	defer dir.Close()
	if path, err = filepath.Abs(path); err != nil {
		return "", err
	}
	if path, err = filepath.EvalSymlinks(path); err != nil {
		return "", err
	}
	return path, checkWay(path)
}

// checkWay checks each directory of path from the top; path contains no symbolic link. Once a
// directory is found right, nobody can exchange the next one in the directory.
func checkWay(path string) error {
	const flags = unix.O_PATH | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
	at := "/"
	fd, err := unix.Open(at, flags, 0)
	if err != nil {
		return &os.PathError{Op: "open directory", Path: at, Err: err}
	}
	defer func() { unix.Close(fd) }()
	for name := range strings.SplitSeq(strings.Trim(path, "/"), "/") {
		if err := passable(fd, at); err != nil {
			return err
		}
		if at = filepath.Join(at, name); at == "/" {
			break
		}
		next, err := unix.Openat(fd, name, flags, 0)
		if err != nil {
			return &os.PathError{Op: "open directory", Path: at, Err: err}
		}
		unix.Close(fd)
		fd = next
	}
	return private(fd, path)
}

// private returns why the open directory at path is not private, nil if the directory is private.
func private(fd int, path string) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return &os.PathError{Op: "stat", Path: path, Err: err}
	}
	return judge(&st, path, Private(&st))
}

// passable returns why another user could exchange the content of the open directory at path, nil
// if nobody can.
func passable(fd int, path string) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return &os.PathError{Op: "stat", Path: path, Err: err}
	}
	kept := Private(&st) || trusted(&st) && st.Mode&unix.S_ISVTX != 0
	if os.Geteuid() != 0 { // a group with write permission, from umask 002, is the user's own
		kept = kept || trusted(&st) && st.Mode&0o002 == 0
	}
	return judge(&st, path, kept)
}

// Private reports whether a directory is private, by its status.
func Private(st *unix.Stat_t) bool { return trusted(st) && st.Mode&othersWrite == 0 }

// judge returns the fault of the directory at path, nil if good.
func judge(st *unix.Stat_t, path string, good bool) error {
	switch {
	case good:
		return nil
	case !trusted(st):
		owner := "root"
		if uid := os.Geteuid(); uid != 0 {
			owner = fmt.Sprintf("user %d or root", uid)
		}
		return fmt.Errorf("directory %s belongs to user %d, and %s must own it: see what is in it, then chown it, or use another one", path, st.Uid, owner)
	default:
		return fmt.Errorf("directory %s may be written by others (mode %04o): see what is in it, then chmod go-w it", path, st.Mode&0o7777)
	}
}
