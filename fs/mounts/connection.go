package mounts

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// Served reports whether the file system of m still lives, in any mount namespace. The answer
// comes from the kernel's list of FUSE connections (fusectl).
func Served(m Mount) (bool, error) {
	list, err := connections()
	if err != nil {
		return false, err
	}
	defer unix.Close(list)
	var st unix.Stat_t
	err = unix.Fstatat(list, connectionName(m), &st, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	return err == nil, err
}

// Abort ends the connection between the kernel and the daemon of m, also while m is in use. Every
// mount of the file system is dead from then on.
func Abort(m Mount) error {
	list, err := connections()
	if err != nil {
		return err
	}
	defer unix.Close(list)
	fd, err := unix.Openat(list, connectionName(m)+"/abort", unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err == nil {
		defer unix.Close(fd)
		_, err = unix.Write(fd, []byte("1"))
	}
	if err != nil {
		return fmt.Errorf("abort the connection of %s: %w", m.Mountpoint, err)
	}
	return nil
}

// connectionName is the name of m's connection: the device number as one word.
func connectionName(m Mount) string {
	n := deviceNumber(m.Device)
	return strconv.FormatUint(uint64(unix.Major(n))<<20|uint64(unix.Minor(n)), 10)
}

// connections opens the list of FUSE connections, in a detached mount of fusectl. Where such a
// mount is not permitted, connections opens the list in /sys.
func connections() (int, error) {
	if fd, err := mountConnections(); err == nil {
		return fd, nil
	}
	const usual = "/sys/fs/fuse/connections"
	fd, err := unix.Open(usual, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: usual, Err: err}
	}
	return fd, nil
}

func mountConnections() (int, error) {
	fs, err := unix.Fsopen("fusectl", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, err
	}
	defer unix.Close(fs)
	if err := unix.FsconfigCreate(fs); err != nil {
		return -1, err
	}
	return unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
}
