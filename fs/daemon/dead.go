package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"vmcryptfs/advice"
	"vmcryptfs/fs/mounts"
	"vmcryptfs/words"
)

// DeadTime is how long a mount may take to prove that its daemon is gone.
const DeadTime = time.Second

// ErrSilent says that a mount did not answer in time: its daemon may be gone or live.
var ErrSilent = errors.New("no answer")

// IsDead reports whether the daemon of what is mounted at mountpoint is gone. A mount that does
// not answer within DeadTime counts as alive.
func IsDead(mountpoint string) bool {
	return errors.Is(Ask(mountpoint, DeadTime), unix.ENOTCONN)
}

// Ask has the mount at mountpoint answer a request. The error is ENOTCONN where the daemon is
// gone, mounts.ErrNotMounted where no FUSE file system is mounted, and ErrSilent where no answer
// comes within limit.
func Ask(mountpoint string, limit time.Duration) error {
	answer := make(chan error, 1)
	go func() { // ends with the system call, which a dead daemon's end ends
		var st unix.Statfs_t
		err := unix.Statfs(mountpoint, &st)
		if err == nil && st.Type != unix.FUSE_SUPER_MAGIC {
			err = mounts.ErrNotMounted
		}
		answer <- err
	}()
	select {
	case err := <-answer:
		return err
	case <-time.After(limit):
		return fmt.Errorf("%w within %v", ErrSilent, limit)
	}
}

// checkDead refuses a mount that no other may take the place of: one that is alive, or not
// of the same BACKING. errSilent: it may be dead, and is to be asked again. Users other than
// root mount by fusermount3, which does not mount over a dead mount.
func checkDead(m mounts.Mount, backing string) error {
	err := Ask(m.Mountpoint, DeadTime)
	umount := words.Command([]string{"vmcryptfs", "umount", m.Mountpoint})
	switch {
	case err == nil:
		return advice.New(fmt.Errorf("%s: a vmcryptfs is mounted there already: %w", m.Mountpoint, unix.EBUSY), umount+" ends it")
	case !errors.Is(err, unix.ENOTCONN):
		return advice.New(fmt.Errorf("%s: a vmcryptfs is mounted there already, and does not say if its daemon lives: %w: %w", m.Mountpoint, err, unix.EBUSY), "look at its daemon and its log")
	case os.Geteuid() != 0:
		return advice.New(fmt.Errorf("%s: a dead mount is there, its daemon is gone: %w", m.Mountpoint, unix.EBUSY), umount+" clears it")
	case m.Source != backing:
		return advice.New(fmt.Errorf("%s: a dead mount of %s is there, its daemon is gone: %w", m.Mountpoint, m.Source, unix.EBUSY), "mount that BACKING there again, or "+umount+" clears it")
	}
	return nil
}

// ClearDead takes out of sight the dead mounts of backing that lie uppermost at mountpoint. It is
// for a mountpoint where nothing is to be mounted any more. Whoever has files of a dead mount open
// gets errors until these are closed. The daemon and the command of an unmount may call ClearDead
// at the same time.
func ClearDead(mountpoint, backing string) error {
	last := 0
	for {
		m, err := mounts.Find(mountpoint)
		if errors.Is(err, mounts.ErrNotMounted) || err == nil && (m.Source != backing || !IsDead(m.Mountpoint)) {
			return nil
		}
		if err == nil {
			err = mounts.Unmount(context.Background(), m, true)
		}
		if err != nil && (m.ID == last || !errors.Is(err, unix.EINVAL)) { // EINVAL, once: it is gone
			return err
		}
		last = m.ID
	}
}
