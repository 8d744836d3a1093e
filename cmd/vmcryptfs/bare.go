package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"vmcryptfs/fs/admin/mounts"
)

// The bare directory is MOUNTPOINT without a mount. What a hypervisor writes there is in
// clear, and the next mount hides it.

// mostNames is how many names a message about the bare directory tells.
const mostNames = 3

// checkBare refuses a bare directory that is not empty, unless guests wait for the mount
// above a dead one, and makes it immutable if that was asked for.
func (d *daemon) checkBare() error {
	o := d.config.options
	if d.dead != nil && !o.protect {
		return nil
	}
	bare, err := d.openBare()
	if err != nil {
		return fmt.Errorf("MOUNTPOINT: %w", err)
	}
	defer bare.Close()
	if d.dead == nil && !o.nonempty {
		held, err := firstNames(bare)
		if err != nil {
			return fmt.Errorf("MOUNTPOINT: %w", err)
		}
		if held != "" {
			return usagef("MOUNTPOINT %s is not empty, and the mount would hide what was written there in clear: %s. Move it away, or -o nonempty", d.config.mountpoint, held)
		}
	}
	if !o.protect {
		return nil
	}
	return protect(bare)
}

func (d *daemon) openBare() (*os.File, error) {
	if d.dead != nil {
		return mounts.OpenBare(d.config.mountpoint)
	}
	return os.Open(d.config.mountpoint)
}

// lookBelow tells what lies below the mount, where nothing may lie: guests wrote it while the
// mount was made, or before, when another way led there.
func (d *daemon) lookBelow() {
	if d.config.options.nonempty || os.Geteuid() != 0 { // others may not look
		return
	}
	held := ""
	bare, err := mounts.OpenBare(d.config.mountpoint)
	if err == nil {
		defer bare.Close()
		held, err = firstNames(bare)
	}
	if err != nil {
		d.log.Warn("what lies below the mount is not known", "mountpoint", d.config.mountpoint, "error", err)
	}
	if held != "" {
		d.below = fmt.Sprintf("below the mount, in %s itself, lies what was written in clear without it: %s. Unmount, and move it away", d.config.mountpoint, held)
		d.log.Error("MOUNTPOINT is not empty", "problem", d.below)
	}
}

// firstNames tells what a directory holds, for people; nothing of an empty one.
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

// protect makes the directory immutable: without a mount over it nothing can be made there,
// by nobody. It stays so.
func protect(dir *os.File) error {
	fd := int(dir.Fd())
	flags, err := unix.IoctlGetUint32(fd, unix.FS_IOC_GETFLAGS)
	if err == nil && flags&immutable == 0 {
		err = unix.IoctlSetPointerInt(fd, unix.FS_IOC_SETFLAGS, int(flags|immutable))
	}
	switch {
	case err == nil:
		return nil
	case isAny(err, unix.ENOTTY, unix.EOPNOTSUPP, unix.EINVAL):
		return fmt.Errorf("protect MOUNTPOINT %s: its file system has no immutable directories: choose one on ext4, XFS or btrfs, or mount without --protect: %w", dir.Name(), err)
	default:
		return fmt.Errorf("protect MOUNTPOINT %s: make it immutable, which needs CAP_LINUX_IMMUTABLE: %w", dir.Name(), err)
	}
}
