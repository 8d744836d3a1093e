package transport

import (
	"fmt"

	"vmcryptfs/fs/admin/mounts"
)

// mount is what a transport knows of its mount.
type mount struct {
	mountpoint string
	done       chan struct{} // closed when the mount is gone and all is answered
}

func (m *mount) Wait() { <-m.done }

// Unmount is umount2(2): the kernel then ends the connection. (go-fuse's own tries five
// times before it says EBUSY.)
func (m *mount) Unmount(lazy bool) error {
	select {
	case <-m.done:
		return nil
	default:
		return mounts.UnmountPath(m.mountpoint, lazy)
	}
}

// giveUp ends a mount that does not answer, and says so.
func (m *mount) giveUp(err error) error {
	if m.Unmount(true) == nil {
		m.Wait()
	}
	return fmt.Errorf("mount %s does not answer: %w", m.mountpoint, err)
}
