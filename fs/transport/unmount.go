package transport

import (
	"fmt"

	"vmcryptfs/fs/admin/mounts"
)

// mount is what a transport knows of its mount.
type mount struct {
	at   mounts.Mount  // as it was made
	done chan struct{} // closed when the mount is gone and all is answered
}

// newMount is what was just mounted at mountpoint. If it cannot be known again later, it
// is unmounted.
func newMount(mountpoint string) (mount, error) {
	at, err := mounts.Find(mountpoint)
	if err != nil {
		_ = mounts.UnmountPath(mountpoint, true)
		return mount{}, fmt.Errorf("mount %s: %w", mountpoint, err)
	}
	return mount{at: at, done: make(chan struct{})}, nil
}

func (m *mount) Wait() { <-m.done }

// Find asks for the device, not the path alone: after a lazy unmount another mount may be
// at this one's place.
func (m *mount) Find() (mounts.Mount, error) {
	now, err := mounts.Find(m.at.Mountpoint)
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
	if _, err := m.Find(); err != nil {
		return fmt.Errorf("the mount is not, or not uppermost, at its place any more: %w", err)
	}
	return mounts.UnmountPath(m.at.Mountpoint, lazy)
}

// giveUp ends a mount that does not answer, and says so.
func (m *mount) giveUp(err error) error {
	if m.Unmount(true) == nil {
		m.Wait()
	}
	return fmt.Errorf("mount %s does not answer: %w", m.at.Mountpoint, err)
}
