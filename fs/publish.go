package fs

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"vmcryptfs/byname"
	"vmcryptfs/fs/ability"
	"vmcryptfs/fs/backing"
	"vmcryptfs/fs/inode"
)

// A program that may write a directory of BACKING can at any moment put another file under any name
// there, a temporary's too. So a new file gets a name by its descriptor. Where only a rename can
// give the name, the file under the name is checked afterwards. By a name alone files are only
// removed: a file put there by other hands stays, but for the moment after the check, and then the
// other hands could have removed their file themselves.

// naming is the way in which new files get their names in a directory.
type naming struct {
	rename bool // after a rename, and after nothing else, a descriptor leads to the file (inode.Inode.Bound)
	plain  bool // RENAME_NOREPLACE is lacking, or even passed over: it may replace
}

func (f *FS) namingIn(dir *inode.Inode) naming {
	return naming{rename: dir.Bound, plain: f.Abilities().Lacks(ability.NoReplace)}
}

// publish gives the open file fd, whose inode is key, a name in dir, or EEXIST. temp is the file's
// temporary name there, which publish removes; "": the file has none.
func publish(dir, fd int, key backing.Key, temp, name string, how naming) error {
	if temp != "" && how.rename {
		return renameNew(dir, key, temp, name, how)
	}
	err := unix.Linkat(unix.AT_FDCWD, byname.ProcPath(fd), dir, name, unix.AT_SYMLINK_FOLLOW)
	if temp == "" {
		return err
	}
	if noLinks(err) {
		return renameNew(dir, key, temp, name, how)
	}
	if err != nil {
		return err
	}
	// The link has given the name, so nothing may fail afterwards: a temporary that stays is
	// hidden, and goes at the next mount.
	_ = removeIf(dir, temp, key, 0)
	return nil
}

// noLinks reports whether err may mean that there are no hard links here: FAT, CIFS, SFTP servers
// and many FUSE file systems have errnos of their own for such a lack. If err means something else,
// a rename fails too.
func noLinks(err error) bool {
	return isErrno(err, unix.EPERM, unix.EOPNOTSUPP, unix.ENOSYS, unix.EACCES, unix.EMLINK, unix.EINVAL, unix.EXDEV)
}

// isErrno reports whether err is one of list.
func isErrno(err error, list ...unix.Errno) bool {
	for _, errno := range list {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

// renameNew gives the inode key, which has the name temp in dir, another name, or EEXIST.
func renameNew(dir int, key backing.Key, temp, name string, how naming) error {
	err := error(unix.EINVAL)
	if !how.plain {
		err = unix.Renameat2(dir, temp, dir, name, unix.RENAME_NOREPLACE)
	}
	if isErrno(err, unix.EINVAL, unix.ENOSYS, unix.EOPNOTSUPP) {
		err = renameReserved(dir, temp, name)
	}
	if err != nil {
		return err
	}
	return leadsTo(dir, name, key)
}

// renameReserved is a rename without flags that replaces nobody's file: an empty file is made
// first, and only that file is replaced. (After a crash between the two the empty file stays; no
// caller's file is lost.)
func renameReserved(dir int, temp, name string) error {
	const flags = unix.O_WRONLY | unix.O_CREAT | unix.O_EXCL | unix.O_NOFOLLOW | unix.O_CLOEXEC
	fd, err := unix.Openat(dir, name, flags, 0o600)
	if err != nil {
		return err
	}
	var st unix.Stat_t
	err = unix.Fstat(fd, &st)
	unix.Close(fd) // before the rename: FUSE file systems keep a replaced open file as a hidden one
	if err != nil {
		return err
	}
	if err := leadsTo(dir, name, backing.KeyOf(&st)); err != nil {
		return err
	}
	if err := unix.Renameat(dir, temp, dir, name); err != nil {
		return errors.Join(err, removeIf(dir, name, backing.KeyOf(&st), 0))
	}
	return nil
}

// leadsTo is nil if name in dir leads to the inode key. EIO: other hands gave the name away.
func leadsTo(dir int, name string, key backing.Key) error {
	var st unix.Stat_t
	if err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	if backing.KeyOf(&st) != key {
		return fmt.Errorf("%q was given to another file meanwhile: %w", name, unix.EIO)
	}
	return nil
}

// removeIf removes name from dir if the name still leads to the inode key. flags are unlinkat(2)'s.
func removeIf(dir int, name string, key backing.Key, flags int) error {
	if err := leadsTo(dir, name, key); err != nil {
		return err
	}
	return unix.Unlinkat(dir, name, flags)
}
