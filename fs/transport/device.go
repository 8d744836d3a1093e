package transport

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

const devFuse = "/dev/fuse"

// fuseDevIocClone is FUSE_DEV_IOC_CLONE, _IOR(229, 0, uint32): it makes an open /dev/fuse
// another way to the connection of the descriptor that it is given.
const fuseDevIocClone = 0x8004e500

// device is one mount's connection to the kernel, opened twice: what waits for a request
// and what only looks for one. A request is answered where it was read.
type device struct {
	waiting int // read(2) sleeps until there is a request
	looking int // read(2) is EAGAIN while there is none

	mu     sync.RWMutex // closing, which waits for notices: workers end before it
	closed bool
}

// mountDevice mounts at mountpoint, which needs CAP_SYS_ADMIN, and returns the way to it.
func mountDevice(mountpoint string, o Options) (*device, error) {
	var st unix.Stat_t
	if err := unix.Stat(mountpoint, &st); err != nil {
		return nil, fmt.Errorf("mountpoint %s: %w", mountpoint, err)
	}
	waiting, err := unix.Open(devFuse, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", devFuse, err)
	}
	data := []string{
		fmt.Sprintf("fd=%d,rootmode=%o,user_id=%d,group_id=%d", waiting, st.Mode&unix.S_IFMT, os.Geteuid(), os.Getegid()),
		fmt.Sprintf("max_read=%d,default_permissions", maxWrite),
	}
	if o.AllowOther {
		data = append(data, "allow_other")
	}
	flags, rest := mountFlags(o)
	source := o.FsName
	if source == "" {
		source = "vmcryptfs"
	}
	if err := unix.Mount(source, mountpoint, "fuse.vmcryptfs", flags, strings.Join(slices.Concat(data, rest), ",")); err != nil {
		_ = unix.Close(waiting)
		return nil, fmt.Errorf("mount %s: %w", mountpoint, err)
	}
	looking, err := cloneDevice(waiting)
	if err != nil {
		_ = unix.Close(waiting) // which ends the connection: nobody can be hung by it
		_ = unix.Unmount(mountpoint, unix.MNT_DETACH)
		return nil, err
	}
	return &device{waiting: waiting, looking: looking}, nil
}

// mountFlags splits mount(8)'s options into those that mount(2) takes as bits and those that the
// file system takes as words.
func mountFlags(o Options) (flags uintptr, rest []string) {
	flags = unix.MS_NOSUID | unix.MS_NODEV
	if o.ReadOnly {
		flags |= unix.MS_RDONLY
	}
	for _, option := range o.Extra {
		switch option {
		case "suid":
			flags &^= unix.MS_NOSUID
		case "dev":
			flags &^= unix.MS_NODEV
		case "nosuid":
			flags |= unix.MS_NOSUID
		case "nodev":
			flags |= unix.MS_NODEV
		case "noexec":
			flags |= unix.MS_NOEXEC
		case "exec":
			flags &^= unix.MS_NOEXEC
		default:
			rest = append(rest, option)
		}
	}
	return flags, rest
}

func cloneDevice(fd int) (int, error) {
	clone, err := unix.Open(devFuse, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return -1, fmt.Errorf("open %s: %w", devFuse, err)
	}
	if err := unix.IoctlSetPointerInt(clone, fuseDevIocClone, fd); err != nil {
		_ = unix.Close(clone)
		return -1, fmt.Errorf("clone %s: %w", devFuse, err)
	}
	return clone, nil
}

// look reads a request if there is one, and is EAGAIN if not.
func (d *device) look(p []byte) (int, error) { return syscall.Read(d.looking, p) }

// wait sleeps until it has read a request.
func (d *device) wait(p []byte) (int, error) { return syscall.Read(d.waiting, p) }

// write sends an answer or a notice, whole. (It, look and wait are calls of package
// syscall since that tells the race detector what was before what.)
func write(fd int, p []byte) error {
	return uninterrupted(func() error {
		_, err := syscall.Write(fd, p)
		return err
	})
}

// uninterrupted calls again what a signal has interrupted.
func uninterrupted(call func() error) error {
	for {
		if err := call(); err != unix.EINTR {
			return err
		}
	}
}

func (d *device) close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	_ = unix.Close(d.looking)
	_ = unix.Close(d.waiting)
}

// notifyInode is FUSE_NOTIFY_INVAL_INODE. It may be called at any time.
func (d *device) notifyInode(node uint64, off, length int64) fuse.Status {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if d.closed {
		return fuse.ENODEV
	}
	notice := struct {
		fuse.OutHeader
		fuse.NotifyInvalInodeOut
	}{
		fuse.OutHeader{Status: -fuse.NOTIFY_INVAL_INODE},
		fuse.NotifyInvalInodeOut{Ino: node, Off: off, Length: length},
	}
	size := unsafe.Sizeof(notice)
	notice.OutHeader.Length = uint32(size)
	return fuse.ToStatus(write(d.waiting, unsafe.Slice((*byte)(unsafe.Pointer(&notice)), size)))
}

// latchPoll makes the kernel learn, before anything else does, that files here cannot be
// polled: Go's own epoll would ask at an open of this process, and take up the thread that
// is to answer. go-fuse answers for this name by itself.
func latchPoll(mountpoint string) error {
	var fd int
	err := uninterrupted(func() (err error) {
		fd, err = unix.Open(filepath.Join(mountpoint, ".go-fuse-epoll-hack"), unix.O_RDONLY|unix.O_CLOEXEC, 0)
		return err
	})
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	_, err = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
	return err
}
