package fs

import (
	"context"
	"errors"
	"strconv"

	"golang.org/x/sys/unix"

	"vmcryptfs/fs/cryptfile"
	"vmcryptfs/layout"
)

// openBacking opens the file that fd, an O_PATH descriptor, stands for, without leaving
// an access time where that is permitted (to its owner, and to root).
func openBacking(fd int, flags int) (int, error) {
	flags |= unix.O_CLOEXEC | unix.O_NONBLOCK
	file, err := unix.Open(procPath(fd), flags|unix.O_NOATIME, 0)
	if errors.Is(err, unix.EPERM) {
		return unix.Open(procPath(fd), flags, 0)
	}
	return file, err
}

// procPath names what fd is open on, for calls that take no O_PATH descriptor. It is
// followed as a link of /proc straight to the inode, symbolic links included.
func procPath(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

// readHeader reads the header of an encrypted file, which a rekey may be writing.
func readHeader(ctx context.Context, b *cryptfile.OSFile) (layout.Slots, error) {
	slots, err := cryptfile.ReadHeader(b)
	if errors.Is(err, layout.ErrDamaged) {
		return b.ReadHeaderLocked(ctx)
	}
	return slots, err
}
