package transport

import (
	"errors"
	"fmt"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"vmcryptfs/fs/admin/mounts"
)

// moveMountBeneath is MOVE_MOUNT_BENEATH (linux/mount.h, Linux 6.5).
const moveMountBeneath = 0x200

// ErrCovered says that the dead mount, whose place a new one took, could not be detached. Both
// stay, and callers get errors; the new one ends with the process, and must not be waited for.
var ErrCovered = errors.New("the dead mount covers the new one")

// mount is what a transport knows of its mount. At first it may have no place: the kernel's
// connection can be answered, and no path leads to it.
type mount struct {
	mountpoint string        // absolute
	tree       int           // O_PATH descriptor of the root while there is no place; else -1
	at         mounts.Mount  // where it is, once it has a place
	done       chan struct{} // closed when the mount is gone and all is answered
}

// Attach is Server's. At no moment is MOUNTPOINT bare meanwhile: beneath the dead mount the
// new one is there already when the dead one goes.
func (m *mount) Attach(dead *mounts.Mount) error {
	if m.tree < 0 { // mount(2) and the setuid helper gave it a place
		return nil
	}
	at, err := m.describe() // before it has a place: after that nothing of ours may fail
	if err == nil {
		if dead == nil {
			err = moveMount(m.tree, m.mountpoint, 0)
		} else {
			err = m.takePlace(dead, at)
		}
	}
	if err != nil {
		if !errors.Is(err, ErrCovered) {
			err = errors.Join(err, m.Unmount(true))
			m.Wait()
		}
		return fmt.Errorf("mount %s: %w", m.mountpoint, err)
	}
	m.placed(at)
	return nil
}

// describe is what the kernel will list of the mount.
func (m *mount) describe() (mounts.Mount, error) {
	id, err := mounts.IDOf(m.tree)
	if err != nil {
		return mounts.Mount{}, err
	}
	var st unix.Stat_t
	if err := uninterrupted(func() error { return unix.Fstat(m.tree, &st) }); err != nil {
		return mounts.Mount{}, err
	}
	device := fmt.Sprintf("%d:%d", unix.Major(st.Dev), unix.Minor(st.Dev))
	return mounts.Mount{ID: id, Device: device, Mountpoint: m.mountpoint, Type: mounts.FSType}, nil
}

func (m *mount) placed(at mounts.Mount) {
	_ = unix.Close(m.tree) // it would keep the mount busy
	m.tree, m.at = -1, at
}

// takePlace gives the mount its place beneath the dead one, and detaches that.
func (m *mount) takePlace(dead *mounts.Mount, at mounts.Mount) error {
	fd, err := unix.Open(m.mountpoint, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if id, err := mounts.IDOf(fd); err != nil || id != dead.ID {
		return errors.Join(fmt.Errorf("the dead mount is not, or not uppermost, at its place any more: %w", mounts.ErrNotMounted), err)
	}
	err = moveMount(m.tree, m.mountpoint, moveMountBeneath)
	if errors.Is(err, unix.EINVAL) { // an older kernel: over the dead one, which stays below
		return moveMount(m.tree, m.mountpoint, 0)
	}
	if err != nil {
		return err
	}
	err = unix.Unmount("/proc/self/fd/"+strconv.Itoa(fd), unix.MNT_DETACH)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EINVAL): // somebody was faster, and means this one too
		m.placed(at)
		return fmt.Errorf("the dead mount was unmounted meanwhile: %w", mounts.ErrNotMounted)
	default:
		return fmt.Errorf("detach the dead mount: %w: %w", ErrCovered, err)
	}
}

func moveMount(tree int, mountpoint string, flags int) error {
	return unix.MoveMount(tree, "", unix.AT_FDCWD, mountpoint, unix.MOVE_MOUNT_F_EMPTY_PATH|flags)
}

// found is a mount that got its place as it was made. If it cannot be known again later, it
// is unmounted.
func found(mountpoint string) (mount, error) {
	at, err := mounts.Find(mountpoint)
	if err != nil {
		_ = mounts.UnmountPath(mountpoint, true)
		return mount{}, fmt.Errorf("mount %s: %w", mountpoint, err)
	}
	return mount{mountpoint: mountpoint, tree: -1, at: at, done: make(chan struct{})}, nil
}

// Wait is Server's.
func (m *mount) Wait() { <-m.done }

// Find asks for the device, not the path alone: after a lazy unmount another mount may be
// at this one's place.
func (m *mount) Find() (mounts.Mount, error) {
	now, err := mounts.Find(m.mountpoint)
	if err == nil && now.Device != m.at.Device {
		err = fmt.Errorf("%s: it is another vmcryptfs that is mounted there: %w", now.Mountpoint, mounts.ErrNotMounted)
	}
	return now, err
}

// Unmount is umount2(2): the kernel then ends the connection. (go-fuse's own tries five
// times before it says EBUSY.)
func (m *mount) Unmount(lazy bool) error {
	select {
	case <-m.done:
		return nil
	default:
	}
	if m.tree >= 0 { // nobody else knows of it
		tree := m.tree
		m.tree = -1
		return unix.Close(tree)
	}
	if _, err := m.Find(); err != nil {
		return fmt.Errorf("the mount is not, or not uppermost, at its place any more: %w", err)
	}
	return mounts.UnmountPath(m.mountpoint, lazy)
}

// giveUp ends a mount that does not answer, and says so.
func (m *mount) giveUp(err error) error {
	if m.Unmount(true) == nil {
		m.Wait()
	}
	return fmt.Errorf("mount %s does not answer: %w", m.mountpoint, err)
}

// latchPoll makes the kernel learn, before anything else does, that files here cannot be
// polled: Go's own epoll would ask at an open of this process, and take up the thread that
// is to answer. go-fuse answers for this name by itself.
func (m *mount) latchPoll() error {
	const name = ".go-fuse-epoll-hack"
	var fd int
	err := uninterrupted(func() (err error) {
		if m.tree >= 0 {
			fd, err = unix.Openat(m.tree, name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		} else {
			fd, err = unix.Open(filepath.Join(m.mountpoint, name), unix.O_RDONLY|unix.O_CLOEXEC, 0)
		}
		return err
	})
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	_, err = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
	return err
}
