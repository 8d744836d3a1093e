package daemon

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"unicode/utf8"

	"vmcryptfs/advice"
	"vmcryptfs/fs/mounts"
	"vmcryptfs/words"
)

// checkPaths refuses impossible paths, and a MOUNTPOINT in use.
func (d *daemon) checkPaths() error {
	backing, err := filepath.EvalSymlinks(d.config.Backing)
	if err != nil {
		return fmt.Errorf("BACKING: %w", err)
	}
	if at, mounted, err := mounts.Backing(backing); err == nil && mounted {
		return advice.New(advice.Usagef("BACKING %s lies in a mounted datastore", backing), fmt.Sprintf("name what lies below: vmcryptfs mount %s %s", at, d.config.Mountpoint))
	}
	mountpoint := d.config.Mountpoint
	if m, err := mounts.Find(mountpoint); err == nil {
		if err := checkDead(m, backing); err != nil {
			return err
		}
		d.dead, mountpoint = &m, m.Mountpoint
		if d.config.Again { // remounted, perhaps, since the options were given
			d.config.ReadOnly = m.ReadOnlyAll() || d.config.Copy
			for _, name := range m.Attributes() {
				d.config.SetKernel(name)
			}
		}
	} else if d.config.Again {
		return fmt.Errorf("not mounted again: %w", err)
	} else if mountpoint, err = resolveMountpoint(mountpoint); err != nil {
		return err
	}
	if mounts.Below(mountpoint, backing) {
		return advice.Usagef("MOUNTPOINT %s lies in BACKING %s; mount it somewhere else", mountpoint, backing)
	}
	for _, path := range []string{backing, mountpoint} {
		if !utf8.ValidString(path) { // the control socket names both, in JSON
			return advice.Usagef("the path %s is not UTF-8; rename it, or bind it to one that is", path)
		}
	}
	d.config.Backing, d.config.Mountpoint = backing, mountpoint
	if err := d.openBare(); err != nil {
		return err
	}
	return checkFuse()
}

// resolveMountpoint gives the path of MOUNTPOINT, a directory, without symbolic links.
func resolveMountpoint(path string) (string, error) {
	mountpoint, err := filepath.EvalSymlinks(path)
	if err != nil {
		return "", noMountpoint(path, err)
	}
	info, err := os.Stat(mountpoint)
	if err != nil {
		return "", fmt.Errorf("MOUNTPOINT: %w", err)
	}
	if !info.IsDir() {
		return "", advice.Usagef("MOUNTPOINT %s is not a directory; name one", mountpoint)
	}
	return mountpoint, nil
}

// noMountpoint explains an error of finding MOUNTPOINT.
func noMountpoint(path string, err error) error {
	err = fmt.Errorf("MOUNTPOINT: %w", err)
	if errors.Is(err, os.ErrNotExist) {
		return advice.New(err, "make it: "+words.Command([]string{"mkdir", "-p", path}))
	}
	return err
}

// checkFuse refuses a user without access to /dev/fuse. The setuid helper would find the same
// later, and report only to a log.
func checkFuse() error {
	f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		err = fmt.Errorf("FUSE is not to be had: %w", err)
		if errors.Is(err, os.ErrPermission) {
			return advice.New(err, "run it as root, or have root let you: chmod 666 /dev/fuse")
		}
		return advice.New(err, "load the kernel's module: modprobe fuse; in a container, hand /dev/fuse in")
	}
	return f.Close()
}
