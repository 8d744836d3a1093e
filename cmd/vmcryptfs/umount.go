package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"vmcryptfs/fs/admin/mounts"
)

// endTime bounds how long a daemon may take to end after its mount is gone.
const endTime = 30 * time.Second

// umount ends a mount and waits for its daemon, so that BACKING is free after it.
func (p *program) umount(ctx context.Context, args []string) error {
	f := p.flags("umount")
	lazy := f.BoolP("lazy", "l", false, "take the mount out of sight now; it ends with its last open file")
	args, err := p.parse(f, args, "MOUNTPOINT [--lazy]", 1, 1)
	if err != nil {
		return err
	}
	m, err := mounts.Find(args[0])
	if err != nil {
		return err
	}
	pidfd := -1
	if !*lazy {
		// Held before the unmount, so that the process id cannot mean another one. A
		// daemon that does not answer is not waited for.
		if _, daemon, err := mountAt(ctx, m.Mountpoint); err == nil {
			if pidfd, err = unix.PidfdOpen(daemon.PID, 0); err == nil {
				defer unix.Close(pidfd)
			}
		}
	}
	// A command that was called from a directory of the mount is not in its own way.
	if err := os.Chdir("/"); err != nil {
		return err
	}
	if err := mounts.Unmount(m, *lazy); err != nil {
		return err
	}
	// What older kernels left below, when this mount took the place of a dead one.
	if err := clearDead(m.Mountpoint, m.Source); err != nil {
		return err
	}
	if pidfd >= 0 {
		return awaitEnd(pidfd, m)
	}
	return nil
}

// graceTime is how long a daemon takes at most to end where nothing holds its mount.
const graceTime = 2 * time.Second

// awaitEnd waits until the daemon of m is no more. A copy of the mount in another
// namespace keeps it: that is not waited for.
func awaitEnd(pidfd int, m mounts.Mount) error {
	ended, err := waitFor(pidfd, graceTime)
	if ended || err != nil {
		return err
	}
	if holders := mounts.Elsewhere(m); len(holders) > 0 {
		return fmt.Errorf("unmounted here, and its daemon serves on: %w", &mounts.BusyError{Mountpoint: m.Mountpoint, Holders: holders})
	}
	if ended, err = waitFor(pidfd, endTime); ended || err != nil {
		return err
	}
	return fmt.Errorf("unmounted, but the daemon has not ended within %v: its log says why", endTime)
}

// waitFor tells if the process ended within limit.
func waitFor(pidfd int, limit time.Duration) (ended bool, err error) {
	deadline := time.Now().Add(limit)
	for {
		left := time.Until(deadline)
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, int(max(left.Milliseconds(), 0)))
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return false, fmt.Errorf("wait for the daemon: %w", err)
		default:
			return n > 0, nil
		}
	}
}
