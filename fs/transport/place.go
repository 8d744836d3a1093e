package transport

import (
	"errors"
	"fmt"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"vmcryptfs/fs/mounts"
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
	var err error
	switch {
	case m.tree < 0 && dead != nil && m.at.Parent != dead.ID: // mount(2) did not meet it
		err = errGone
	case m.tree < 0:
	case dead == nil:
		err = unix.MoveMount(m.tree, "", unix.AT_FDCWD, m.mountpoint, unix.MOVE_MOUNT_F_EMPTY_PATH)
	default:
		err = m.takePlace(dead)
	}
	if err == nil {
		m.placed()
		return nil
	}
	if !errors.Is(err, ErrCovered) {
		err = errors.Join(err, m.Unmount(true))
	}
	return fmt.Errorf("mount %s: %w", m.mountpoint, err)
}

// errGone: somebody unmounted the dead mount meanwhile, and means this one too.
var errGone = fmt.Errorf("the dead mount is not at its place any more: %w", mounts.ErrNotMounted)

// describe notes what the kernel will list of a mount that has no place yet: once it has one
// nothing of ours may fail. It asks the mount itself.
func (m *mount) describe() error {
	id, err := mounts.IDOf(m.tree)
	if err != nil {
		return err
	}
	var st unix.Stat_t
	if err := uninterrupted(func() error { return unix.Fstat(m.tree, &st) }); err != nil {
		return err
	}
	device := fmt.Sprintf("%d:%d", unix.Major(st.Dev), unix.Minor(st.Dev))
	m.at = mounts.Mount{ID: id, Device: device, Mountpoint: m.mountpoint, Type: mounts.FSType}
	return nil
}

// placed notes that the mount has its place.
func (m *mount) placed() {
	if m.tree >= 0 {
		_ = unix.Close(m.tree) // it would keep the mount busy
		m.tree = -1
	}
}

// takePlace gives the mount its place beneath the dead one, and detaches that. The dead mount
// is held by a descriptor: by its path something else could be met.
func (m *mount) takePlace(dead *mounts.Mount) error {
	fd, err := unix.Open(m.mountpoint, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	id, err := mounts.IDOf(fd)
	if err != nil {
		return err
	}
	if id != dead.ID {
		return errGone
	}
	const byDescriptors = unix.MOVE_MOUNT_F_EMPTY_PATH | unix.MOVE_MOUNT_T_EMPTY_PATH
	err = unix.MoveMount(m.tree, "", fd, "", byDescriptors|moveMountBeneath)
	if errors.Is(err, unix.EINVAL) { // an older kernel: over the dead one, which stays below
		if err = unix.MoveMount(m.tree, "", fd, "", byDescriptors); errors.Is(err, unix.EINVAL) {
			return errGone
		}
		return err
	}
	if err != nil {
		return err
	}
	err = unix.Unmount("/proc/self/fd/"+strconv.Itoa(fd), unix.MNT_DETACH)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EINVAL):
		m.placed()
		return errGone
	default:
		return fmt.Errorf("detach the dead mount: %w: %w", ErrCovered, err)
	}
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

// answers has a new mount answer its first requests.
func (m *mount) answers() error {
	if err := m.latchPoll(); err != nil || m.tree < 0 {
		return err
	}
	return m.describe()
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
