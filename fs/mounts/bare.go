package mounts

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// OpenBare opens the directory on which m is mounted, by a detached copy of the parent mount
// without mounts below (open_tree(2)). OpenBare needs CAP_SYS_ADMIN. Where m lies on the root of
// another mount, no path leads to the directory and OpenBare returns an error. The caller closes
// the file.
func OpenBare(m Mount) (*os.File, error) {
	all, err := List()
	if err != nil {
		return nil, err
	}
	for _, other := range all {
		if other.ID == m.Parent && other.Mountpoint == m.Mountpoint {
			return nil, fmt.Errorf("directory below the mount at %s: %w", m.Mountpoint, errors.New("another mount lies there too"))
		}
	}
	copied, err := unix.OpenTree(unix.AT_FDCWD, filepath.Dir(m.Mountpoint), unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("directory below the mount at %s: %w", m.Mountpoint, err)
	}
	defer unix.Close(copied)
	fd, err := unix.Openat(copied, filepath.Base(m.Mountpoint), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("directory below the mount at %s: %w", m.Mountpoint, err)
	}
	return os.NewFile(uintptr(fd), m.Mountpoint), nil
}
