package transport

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"vmcryptfs/fs/mounts"
)

const devFuse = "/dev/fuse"

// longestSource is the longest source of a mount, in bytes, accepted by fsconfig(2).
const longestSource = 255

// connect makes a FUSE mount, which needs CAP_SYS_ADMIN, and returns the descriptor of the
// mount's connection. The mount has no place yet. Where the kernel cannot make a mount without a
// place (before Linux 5.4, in some sandboxes, for a long source), mount(2) puts the mount at its
// place at once, over the present one.
func connect(mountpoint string, o Options) (fuse int, m mount, err error) {
	fuse, tree, nowhere := openFuse(o.mountNowhere)
	if nowhere == nil {
		return fuse, mount{mountpoint: mountpoint, tree: tree, done: make(chan struct{})}, nil
	}
	fuse, m, err = openFuse(func(fuse int) (mount, error) { return o.mountAt(mountpoint, fuse) })
	if err != nil { // the first error may explain more
		return -1, mount{}, fmt.Errorf("mount %s: %w (by fsmount: %w)", mountpoint, err, nowhere)
	}
	return fuse, m, nil
}

// openFuse opens a connection and calls mount with the connection; a failure of mount ends the
// connection.
func openFuse[T any](mount func(fuse int) (T, error)) (fuse int, made T, err error) {
	fuse, err = unix.Open(devFuse, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, made, fmt.Errorf("open %s: %w", devFuse, err)
	}
	if made, err = mount(fuse); err != nil {
		_ = unix.Close(fuse)
	}
	return fuse, made, err
}

// mountNowhere makes a mount without a place, and returns a descriptor of the mount's root.
func (o Options) mountNowhere(fuse int) (tree int, err error) {
	if len(o.source()) > longestSource {
		return -1, unix.ENAMETOOLONG
	}
	fs, err := unix.Fsopen("fuse", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("fsopen: %w", err)
	}
	defer unix.Close(fs)
	settings := append(o.settings(fuse), setting{"source", o.source()}, setting{"subtype", "vmcryptfs"})
	if o.ReadOnly {
		settings = append(settings, setting{name: "ro"})
	}
	for _, s := range settings {
		if s.value == "" {
			err = unix.FsconfigSetFlag(fs, s.name)
		} else {
			err = unix.FsconfigSetString(fs, s.name, s.value)
		}
		if err != nil {
			return -1, fmt.Errorf("fsconfig %s: %w", s.name, err)
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return -1, fmt.Errorf("fsconfig: %w", err)
	}
	tree, err = unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, int(o.attributes()))
	if err != nil {
		return -1, fmt.Errorf("fsmount: %w", err)
	}
	return tree, nil
}

// mountAt makes a mount at its place.
func (o Options) mountAt(mountpoint string, fuse int) (mount, error) {
	var data []string
	for _, s := range o.settings(fuse) {
		if s.value != "" {
			s.name += "="
		}
		data = append(data, s.name+s.value)
	}
	if err := unix.Mount(o.source(), mountpoint, mounts.FSType, o.attributes(), strings.Join(data, ",")); err != nil {
		return mount{}, err
	}
	return found(mountpoint)
}

func (o Options) source() string {
	if o.FsName == "" {
		return "vmcryptfs"
	}
	return o.FsName
}

// setting is an option of the FUSE file system; a setting without a value is a flag.
type setting struct{ name, value string }

func (o Options) settings(fuse int) []setting {
	s := []setting{
		{"fd", strconv.Itoa(fuse)},
		{"rootmode", strconv.FormatInt(unix.S_IFDIR, 8)},
		{"user_id", strconv.Itoa(os.Geteuid())},
		{"group_id", strconv.Itoa(os.Getegid())},
		{"max_read", strconv.Itoa(maxWrite)},
		{name: "default_permissions"},
	}
	if o.AllowOther {
		s = append(s, setting{name: "allow_other"})
	}
	return s
}

// attributes returns the mount's own attributes, for mount(2) and fsmount(2), which share the
// bits of these four.
func (o Options) attributes() uintptr {
	flags := uintptr(unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV)
	if o.ReadOnly {
		flags |= unix.MOUNT_ATTR_RDONLY
	}
	for _, option := range o.Extra {
		switch option {
		case "suid":
			flags &^= unix.MOUNT_ATTR_NOSUID
		case "dev":
			flags &^= unix.MOUNT_ATTR_NODEV
		case "nosuid":
			flags |= unix.MOUNT_ATTR_NOSUID
		case "nodev":
			flags |= unix.MOUNT_ATTR_NODEV
		case "noexec":
			flags |= unix.MOUNT_ATTR_NOEXEC
		case "exec":
			flags &^= unix.MOUNT_ATTR_NOEXEC
		}
	}
	return flags
}
