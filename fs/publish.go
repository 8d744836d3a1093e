package fs

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Whoever may write a directory of BACKING can put another file under any name in it, a
// temporary's too, at any moment. So a new file gets its name by its descriptor, and where
// only a rename can give it, what has the name then is looked at. By a name alone things are
// only removed: one that other hands took meanwhile stays, but for the moment after the look,
// and then these hands could have removed what they put there themselves.

// publish gives the open file fd, whose inode is key, a name in dir, or EEXIST. temp is its
// temporary name there, which goes; empty: it has none.
func publish(dir, fd int, key inodeKey, temp, name string) error {
	err := unix.Linkat(unix.AT_FDCWD, procPath(fd), dir, name, unix.AT_SYMLINK_FOLLOW)
	if temp == "" {
		return err
	}
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EOPNOTSUPP) { // no hard links here
		if err := unix.Renameat2(dir, temp, dir, name, unix.RENAME_NOREPLACE); err != nil {
			return err
		}
		return leadsTo(dir, name, key)
	}
	if err != nil {
		return err
	}
	// The name is given with the link, so nothing may fail after it: a temporary that stays
	// is hidden, and goes at the next mount.
	_ = removeIf(dir, temp, key, 0)
	return nil
}

// leadsTo is nil if name in dir is the inode key: EIO if other hands gave it away.
func leadsTo(dir int, name string, key inodeKey) error {
	var st unix.Stat_t
	if err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	if keyOf(&st) != key {
		return fmt.Errorf("%q was given to another file meanwhile: %w", name, unix.EIO)
	}
	return nil
}

// removeIf removes name from dir if it still is the inode key. flags are unlinkat(2)'s.
func removeIf(dir int, name string, key inodeKey, flags int) error {
	if err := leadsTo(dir, name, key); err != nil {
		return err
	}
	return unix.Unlinkat(dir, name, flags)
}
