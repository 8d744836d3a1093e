package transport

import (
	"errors"
	"fmt"
	"path/filepath"

	"golang.org/x/sys/unix"

	"vmcryptfs/byname"
	"vmcryptfs/fs/mounts"
)

// moveMountBeneath is MOVE_MOUNT_BENEATH (linux/mount.h, Linux 6.5).
const moveMountBeneath = 0x200

// ErrCovered reports that the dead mount, replaced by a new one, could not be detached. Both
// mounts stay, and callers get errors. The new mount ends with the process, and must not be
// waited for.
var ErrCovered = errors.New("the dead mount covers the new one")

// mount is a transport's knowledge of its mount. At first the mount may have no place: the
// kernel's connection can be answered, and no path leads to the mount.
type mount struct {
	mountpoint string        // absolute
	tree       int           // O_PATH descriptor of the root while there is no place; else -1
	at         mounts.Mount  // description, complete once the mount has a place
	done       chan struct{} // closed when the mount is gone and all is answered
}

// Attach is Server's. At no moment is MOUNTPOINT bare meanwhile: beneath the dead mount the
// new one is there already when the dead one goes.
func (m *mount) Attach(dead *mounts.Mount) error {
	var err error
	switch {
	case m.tree < 0 && dead != nil && m.at.Parent != dead.ID: // mount(2) did not cover the dead mount
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

// errGone: somebody unmounted the dead mount meanwhile, and wants this mount gone too.
var errGone = fmt.Errorf("the dead mount is not at its place any more: %w", mounts.ErrNotMounted)

// describe records the kernel's future description of a mount without a place. Once the mount has
// a place, nothing here may fail any more, so the mount itself is asked now.
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

// placed records that the mount has its place.
func (m *mount) placed() {
	if m.tree >= 0 {
		_ = unix.Close(m.tree) // the descriptor would keep the mount busy
		m.tree = -1
	}
}

// takePlace puts the mount at its place beneath the dead one, and detaches the dead mount. A
// descriptor holds the dead mount: by the path, something else could be met.
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
	if errors.Is(err, unix.EINVAL) { // an older kernel: over the dead mount, which stays below
		if err = unix.MoveMount(m.tree, "", fd, "", byDescriptors); errors.Is(err, unix.EINVAL) {
			return errGone
		}
		return err
	}
	if err != nil {
		return err
	}
	err = unix.Unmount(byname.ProcPath(fd), unix.MNT_DETACH)
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

// found returns a mount that got its place when made. A mount that could not be recognised later
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

// Find looks for the device, not the path alone: after a lazy unmount another mount may be at
// this one's place.
func (m *mount) Find() (mounts.Mount, error) {
	now, err := mounts.Find(m.mountpoint)
	if err == nil && now.Device != m.at.Device {
		err = fmt.Errorf("%s: it is another vmcryptfs that is mounted there: %w", now.Mountpoint, mounts.ErrNotMounted)
	}
	return now, err
}

// Unmount is umount2(2): the kernel then ends the connection. (go-fuse's own Unmount tries five
// times before EBUSY.)
func (m *mount) Unmount(lazy bool) error {
	select {
	case <-m.done:
		return nil
	default:
	}
	if m.tree >= 0 { // nobody else knows the mount
		tree := m.tree
		m.tree = -1
		return unix.Close(tree)
	}
	if _, err := m.Find(); err != nil {
		return fmt.Errorf("the mount is not, or not uppermost, at its place any more: %w", err)
	}
	return mounts.UnmountPath(m.mountpoint, lazy)
}

// giveUp ends a mount without answers, and returns the error.
func (m *mount) giveUp(err error) error {
	if m.Unmount(true) == nil {
		m.Wait()
	}
	return fmt.Errorf("mount %s does not answer: %w", m.mountpoint, err)
}

// answers makes a new mount answer its first requests.
func (m *mount) answers() error {
	if err := m.latchPoll(); err != nil || m.tree < 0 {
		return err
	}
	return m.describe()
}

// latchPoll makes the kernel learn, before any other use, that files here cannot be polled: Go's
// own epoll would ask at an open by this process, and would take up the thread that has to
// answer. go-fuse answers for this name by itself.
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
