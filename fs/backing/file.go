package backing

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"vmcryptfs/byname"
	"vmcryptfs/fs/cryptfile"
)

// Open opens the regular file name in the directory dir for reading, with no access time left
// where that is permitted (to its owner, and to root). name is a path if dir is unix.AT_FDCWD.
// Anything but a regular file is a *byname.UnfitError. The caller closes the file.
func Open(dir int, name string) (*cryptfile.OSFile, *unix.Stat_t, error) {
	fd, st, err := byname.Open(dir, name, unix.O_RDONLY|unix.O_NOATIME)
	if errors.Is(err, unix.EPERM) { // not the owner, who alone may leave atime alone
		fd, st, err = byname.Open(dir, name, unix.O_RDONLY)
	}
	if err != nil {
		return nil, nil, err
	}
	return cryptfile.NewOSFile(fd), &st, nil
}

// OpenFound is Open of a name that a walk has found. The file is nil for a name that is gone since
// then, or leads to no regular file any more.
func OpenFound(dir int, name string) (*cryptfile.OSFile, error) {
	b, _, err := Open(dir, name)
	if _, unfit := errors.AsType[*byname.UnfitError](err); unfit || errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	return b, err
}

// OpenToWrite opens the file of b, which is open for reading, for reading and writing, whatever
// the name of the file is by now. The caller closes both.
func OpenToWrite(b *cryptfile.OSFile) (*cryptfile.OSFile, error) {
	fd, err := byname.Reopen(b.Fd(), unix.O_RDWR)
	if err != nil {
		return nil, fmt.Errorf("open for writing: %w", err)
	}
	return cryptfile.NewOSFile(fd), nil
}

// Reopen opens the file that fd, an O_PATH descriptor, stands for. The open leaves no access time
// where that is permitted. flags are open(2)'s. The caller closes the descriptor.
func Reopen(fd int, flags int) (int, error) {
	file, err := byname.Reopen(fd, flags|unix.O_NOATIME)
	if errors.Is(err, unix.EPERM) {
		return byname.Reopen(fd, flags)
	}
	return file, err
}
