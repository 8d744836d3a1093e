package mounts

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// OpenBare opens the directory that lies below whatever is mounted at the mountpoint, an
// absolute path. It sees the directory in a copy of the parent's mount that lies nowhere and
// has no mounts of its own (open_tree(2)), which needs CAP_SYS_ADMIN. The caller closes the
// file.
func OpenBare(mountpoint string) (*os.File, error) {
	copied, err := unix.OpenTree(unix.AT_FDCWD, filepath.Dir(mountpoint), unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("directory below the mount at %s: %w", mountpoint, err)
	}
	defer unix.Close(copied)
	fd, err := unix.Openat(copied, filepath.Base(mountpoint), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("directory below the mount at %s: %w", mountpoint, err)
	}
	return os.NewFile(uintptr(fd), mountpoint), nil
}
