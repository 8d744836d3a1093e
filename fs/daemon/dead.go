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

// ErrSilent says that a mount did not answer in time. The daemon may be alive or dead.
var ErrSilent = errors.New("no answer")

// IsDead reports whether the daemon of the mount at mountpoint is gone. A mount that does not
// answer within DeadTime counts as alive.
func IsDead(mountpoint string) bool {
	return errors.Is(Ask(mountpoint, DeadTime), unix.ENOTCONN)
}

// Ask has the mount at mountpoint answer a request. The error is ENOTCONN where the daemon is
// gone, mounts.ErrNotMounted where no FUSE file system is mounted, and ErrSilent where no answer
// comes within limit.
func Ask(mountpoint string, limit time.Duration) error {
	answer := make(chan error, 1)
	go func() { // the goroutine ends with the system call, and the call at the latest when the daemon ends
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

// checkDead returns an error unless another mount may take the place of m: m must be dead and a
// mount of the same BACKING. ErrSilent in the error: m may be dead, so ask again later. Users
// other than root mount by fusermount3; fusermount3 cannot mount over a dead mount.
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

// ClearDead lazily unmounts the dead mounts of backing uppermost at mountpoint. mountpoint is one
// where nothing is to be mounted any more. A process with open files of a dead mount gets errors
// until the files are closed. The daemon and the command of an unmount may call ClearDead at the
// same time.
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
		if err != nil && (m.ID == last || !errors.Is(err, unix.EINVAL)) { // the first EINVAL: m is gone
			return err
		}
		last = m.ID
	}
}
