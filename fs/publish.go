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

// Whoever may write a directory of BACKING can put another file under any name in it, a
// temporary's too, at any moment. So a new file gets its name by its descriptor, and where
// only a rename can give it, what has the name then is looked at. By a name alone things are
// only removed: one that other hands took meanwhile stays, but for the moment after the look,
// and then these hands could have removed what they put there themselves.

// naming is how a new file can get its name in a directory.
type naming struct {
	rename bool // only a rename leaves a descriptor to lead to it (node.bound)
	plain  bool // no rename keeps from replacing; flags may be passed over
}

func (f *FS) namingIn(dir *inode.Inode) naming {
	return naming{rename: dir.Bound, plain: f.Abilities().Lacks(ability.NoReplace)}
}

// publish gives the open file fd, whose inode is key, a name in dir, or EEXIST. temp is its
// temporary name there, which goes; empty: it has none.
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
	// The name is given with the link, so nothing may fail after it: a temporary that stays
	// is hidden, and goes at the next mount.
	_ = removeIf(dir, temp, key, 0)
	return nil
}

// noLinks tells if err may say that there are no hard links here: FAT, CIFS, SFTP servers and
// many FUSE file systems say it in words of their own. If it says more, a rename fails too.
func noLinks(err error) bool {
	return isErrno(err, unix.EPERM, unix.EOPNOTSUPP, unix.ENOSYS, unix.EACCES, unix.EMLINK, unix.EINVAL, unix.EXDEV)
}

// isErrno tells if err is one of these.
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

// renameReserved is rename without flags that replaces nobody's file: an empty one is made first,
// and that alone is replaced. (After a crash between the two it stays: an empty file, which is no
// file's content yet.)
func renameReserved(dir int, temp, name string) error {
	const flags = unix.O_WRONLY | unix.O_CREAT | unix.O_EXCL | unix.O_NOFOLLOW | unix.O_CLOEXEC
	fd, err := unix.Openat(dir, name, flags, 0o600)
	if err != nil {
		return err
	}
	var st unix.Stat_t
	err = unix.Fstat(fd, &st)
	unix.Close(fd) // before it is replaced: FUSE file systems keep what is open as a hidden file
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

// leadsTo is nil if name in dir is the inode key: EIO if other hands gave it away.
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

// removeIf removes name from dir if it still is the inode key. flags are unlinkat(2)'s.
func removeIf(dir int, name string, key backing.Key, flags int) error {
	if err := leadsTo(dir, name, key); err != nil {
		return err
	}
	return unix.Unlinkat(dir, name, flags)
}
