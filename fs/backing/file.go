package backing

import (
	"context"
	"errors"
	"strconv"

	"golang.org/x/sys/unix"

	"vmcryptfs/fs/cryptfile"
	"vmcryptfs/layout"
)

// Reopen opens the file that fd, an O_PATH descriptor, stands for, without leaving
// an access time where that is permitted (to its owner, and to root).
func Reopen(fd int, flags int) (int, error) {
	flags |= unix.O_CLOEXEC | unix.O_NONBLOCK
	file, err := unix.Open(ProcPath(fd), flags|unix.O_NOATIME, 0)
	if errors.Is(err, unix.EPERM) {
		return unix.Open(ProcPath(fd), flags, 0)
	}
	return file, err
}

// ProcPath names what fd is open on, for calls that take no O_PATH descriptor. It is
// followed as a link of /proc straight to the inode, symbolic links included.
func ProcPath(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

// ReadHeader reads the header of an encrypted file, which a rekey may be writing.
func ReadHeader(ctx context.Context, b *cryptfile.OSFile) (layout.Slots, error) {
	slots, err := cryptfile.ReadHeader(b)
	if errors.Is(err, layout.ErrDamaged) {
		return b.ReadHeaderLocked(ctx)
	}
	return slots, err
}
