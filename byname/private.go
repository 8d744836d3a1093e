package byname

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// othersWrite are the permissions by which others than the owner change a directory. Where
// there is an ACL, those of the group bound what it gives to any other user.
const othersWrite = 0o022

// PrivateDir opens the directory that path leads to, which must be private: this user's
// or root's, and for nobody else to write. Names below the descriptor are then this
// program's own, wherever path leads later. The caller closes the directory.
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

// MakePrivateDir is PrivateDir of a directory that is made, with its parents and with
// permissions perm less the umask, where there is none.
func MakePrivateDir(path string, perm os.FileMode) (*os.File, error) {
	if err := os.MkdirAll(path, perm); err != nil {
		return nil, err
	}
	return PrivateDir(path)
}

// MakePrivatePath is MakePrivateDir for who opens files below a path rather than below a
// descriptor. The path that comes back has no symbolic link in it, and nobody but this
// user and root can have it lead elsewhere later: no directory on the way may be another
// user's or written by others, unless its sticky bit keeps them from other users' names.
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

// checkWay looks at each directory of path, which has no symbolic link in it, from the
// top: once a directory is found right, nobody can exchange the next one in it.
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

// private tells why the open directory at path is not private.
func private(fd int, path string) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return &os.PathError{Op: "stat", Path: path, Err: err}
	}
	return judge(&st, path, Private(&st))
}

// passable tells why somebody else could exchange what lies in the open directory at path.
func passable(fd int, path string) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return &os.PathError{Op: "stat", Path: path, Err: err}
	}
	kept := Private(&st) || trusted(&st) && st.Mode&unix.S_ISVTX != 0
	if os.Geteuid() != 0 { // a group that a user lets write, by umask 002, is his own
		kept = kept || trusted(&st) && st.Mode&0o002 == 0
	}
	return judge(&st, path, kept)
}

// Private tells if a directory is private, by its status.
func Private(st *unix.Stat_t) bool { return trusted(st) && st.Mode&othersWrite == 0 }

// judge says what is wrong with the directory at path unless it is good.
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
