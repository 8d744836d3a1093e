package transport

import (
	"fmt"
	"sync"
	"syscall"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// fuseDevIocClone is FUSE_DEV_IOC_CLONE, _IOR(229, 0, uint32). The ioctl makes an open /dev/fuse
// another way to the connection of the descriptor passed.
const fuseDevIocClone = 0x8004e500

// device is one mount's connection to the kernel, opened twice: one descriptor waits for a
// request, the other only looks for one. A request is answered on the descriptor that read the
// request.
type device struct {
	waiting int // read(2) sleeps until there is a request
	looking int // read(2) is EAGAIN while there is none

	mu     sync.RWMutex // closing waits for notices; workers end before closing
	closed bool
}

// newDevice takes over the connection's descriptor.
func newDevice(fuse int) (*device, error) {
	looking, err := cloneDevice(fuse)
	if err != nil {
		_ = unix.Close(fuse) // the connection ends: nobody can hang on the connection
		return nil, err
	}
	return &device{waiting: fuse, looking: looking}, nil
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

// wait sleeps until a request was read.
func (d *device) wait(p []byte) (int, error) { return syscall.Read(d.waiting, p) }

// write sends a whole answer or notice. (write, look and wait call package syscall: package
// syscall informs the race detector about the order of events.)
func write(fd int, p []byte) error {
	return uninterrupted(func() error {
		_, err := syscall.Write(fd, p)
		return err
	})
}

// uninterrupted repeats a call interrupted by a signal.
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

// notifyInode is FUSE_NOTIFY_INVAL_INODE; callable at any time.
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
