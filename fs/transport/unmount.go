package transport

import "vmcryptfs/fs/admin/mounts"

// Unmount does not use go-fuse's, which tries five times before it says EBUSY.
func (s *goFuse) Unmount(lazy bool) error {
	select {
	case <-s.done:
		return nil
	default:
		return mounts.UnmountPath(s.mountpoint, lazy)
	}
}
