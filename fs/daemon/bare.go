package daemon

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"vmcryptfs/advice"
	"vmcryptfs/fs/mounts"
)

// The bare directory is MOUNTPOINT without a mount. A file written there by a hypervisor is in
// clear, and the next mount hides the file.

// mostNames is how many names a message about the bare directory tells.
const mostNames = 3

// openBare opens the bare directory, and refuses a directory that is not empty. Below a dead mount
// nothing is refused, since guests wait for the mount; there an error is only logged.
func (d *daemon) openBare() error {
	if d.dead != nil {
		bare, err := mounts.OpenBare(*d.dead)
		if err != nil {
			d.log.Warn("what lies below the dead mount is not known", "error", err)
			return nil
		}
		d.bare = bare
		return nil
	}
	bare, err := os.Open(d.config.Mountpoint)
	if err != nil {
		return fmt.Errorf("MOUNTPOINT: %w", err)
	}
	d.bare = bare
	held, err := d.heldBelow()
	if err != nil {
		return fmt.Errorf("MOUNTPOINT: %w", err)
	}
	if held != "" {
		return advice.Usagef("MOUNTPOINT %s is not empty, and the mount would hide what was written there in clear: %s; move it away, or mount with -o nonempty", d.config.Mountpoint, held)
	}
	return nil
}

// protectBare makes the bare directory immutable where --protect is given.
func (d *daemon) protectBare() error {
	if !d.config.Protect || d.bare == nil {
		return nil
	}
	return protect(d.bare)
}

// lookBelow notes and logs files below the mount, where none may lie: somebody wrote the files
// while the mount was made, or by another way to the directory. lookBelow closes the bare
// directory.
func (d *daemon) lookBelow() {
	if d.bare == nil {
		return
	}
	held, err := d.heldBelow()
	if err = errors.Join(err, d.closeBare()); err != nil {
		d.log.Warn("what lies below the mount is not known", "mountpoint", d.config.Mountpoint, "error", err)
	}
	if held != "" {
		d.below = fmt.Sprintf("below the mount, in %s itself, lies what was written in clear without it: %s. Unmount, and move it away", d.config.Mountpoint, held)
		d.log.Error("MOUNTPOINT is not empty", "problem", d.below)
	}
}

func (d *daemon) closeBare() error {
	if d.bare == nil {
		return nil
	}
	err := d.bare.Close()
	d.bare = nil
	return err
}

// heldBelow names, for people, forbidden files in the bare directory.
func (d *daemon) heldBelow() (string, error) {
	if d.config.Nonempty {
		return "", nil
	}
	if _, err := d.bare.Seek(0, io.SeekStart); err != nil {
		return "", err
	}
	return firstNames(d.bare)
}

// firstNames gives the first names in a directory, for people; empty for an empty directory.
func firstNames(dir *os.File) (string, error) {
	names, err := dir.Readdirnames(mostNames + 1)
	if err != nil && !errors.Is(err, io.EOF) {
		return "", err
	}
	var told []string
	for i, name := range names {
		if i == mostNames {
			return strings.Join(told, ", ") + " and more", nil
		}
		told = append(told, strconv.Quote(name))
	}
	return strings.Join(told, ", "), nil
}

// immutable is FS_IMMUTABLE_FL (linux/fs.h), chattr(1)'s i.
const immutable = 0x10

// protect makes the directory immutable, for good: without a mount over the directory nobody can
// make a file there, not even root.
func protect(dir *os.File) error {
	fd := int(dir.Fd())
	flags, err := unix.IoctlGetUint32(fd, unix.FS_IOC_GETFLAGS)
	if err == nil && flags&immutable == 0 {
		err = unix.IoctlSetPointerInt(fd, unix.FS_IOC_SETFLAGS, int(flags|immutable))
	}
	switch {
	case err == nil, errors.Is(err, unix.EROFS): // nothing is written to a read-only one either
		return nil
	case errors.Is(err, unix.ENOTTY), errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EINVAL):
		return fmt.Errorf("protect MOUNTPOINT %s: its file system has no immutable directories: choose one on ext4, XFS or btrfs, or mount without --protect: %w", dir.Name(), err)
	default:
		return fmt.Errorf("protect MOUNTPOINT %s: make it immutable, which needs CAP_LINUX_IMMUTABLE: %w", dir.Name(), err)
	}
}
