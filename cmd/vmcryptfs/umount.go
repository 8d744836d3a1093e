package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"vmcryptfs/fs/admin"
	"vmcryptfs/fs/daemon"
	"vmcryptfs/fs/mounts"
	"vmcryptfs/words"
)

// umount ends a mount and waits for the end of the daemon, so BACKING is free afterwards.
func (p *program) umount(ctx context.Context, args []string) error {
	f := p.flags("umount")
	lazy := f.BoolP("lazy", "l", false, "take the mount out of sight now; it ends with its last open file")
	args, err := p.parse(f, args, "MOUNTPOINT [--lazy]", 1, 1)
	if err != nil {
		return err
	}
	m, err := mounts.Find(args[0])
	if errors.Is(err, mounts.ErrNotMounted) && *lazy {
		return leaveGone(ctx, args[0], err)
	}
	if err != nil {
		return notMounted(args[0], err)
	}
	// The command itself must not hold the mount by the working directory.
	if err := os.Chdir("/"); err != nil {
		return err
	}
	client, of, served := mountAt(ctx, m.Mountpoint)
	if *lazy {
		return p.unmountLazily(ctx, client, m)
	}
	pidfd := -1
	// The descriptor is opened before the unmount, while the process id is surely the daemon's. A
	// silent daemon is not waited for.
	if served == nil {
		if pidfd, err = unix.PidfdOpen(of.PID, 0); err == nil {
			defer unix.Close(pidfd)
		}
	}
	// A dead mount's copies keep nothing, and of a bind mount nothing has to end.
	if served == nil || !daemon.IsDead(m.Mountpoint) && !isBind(ctx, m) {
		if err := mounts.AwaitAlone(ctx, m); err != nil {
			return err
		}
	}
	if err := mounts.Unmount(ctx, m, false); err != nil {
		return err
	}
	// On older kernels a dead mount stays below the replacing mount.
	if err := daemon.ClearDead(m.Mountpoint, m.Source); err != nil {
		return err
	}
	if pidfd >= 0 {
		return awaitEnd(ctx, pidfd, m)
	}
	return nil
}

// isBind reports whether m is a bind mount of a mount still at the mountpoint. The daemon of such
// an m serves on without m.
func isBind(ctx context.Context, m mounts.Mount) bool {
	_, own, err := daemon.Find(ctx, func(d admin.Mount) bool { return d.Device == m.Device && d.Backing == m.Source })
	if err != nil || own.Device == "" || own.MountID == m.ID {
		return false
	}
	all, err := mounts.List()
	return err == nil && slices.ContainsFunc(all, daemon.KernelMount(own).Is)
}

// unmountLazily takes m out of sight. An answering daemon is told before the unmount, and then
// ends with the last user of the files, even if copies of the mount stay elsewhere.
func (p *program) unmountLazily(ctx context.Context, client *admin.Client, m mounts.Mount) error {
	if client != nil {
		asking, cancel := context.WithTimeout(ctx, mounts.Grace)
		defer cancel()
		if err := client.Leave(asking); err != nil { // the daemon is of an earlier version, or hangs
			fmt.Fprintln(p.stderr, "vmcryptfs: warning: "+words.Line(fmt.Sprintf("copies of the mount in other namespaces will keep the daemon: %v", err)))
		}
	}
	if err := mounts.Unmount(ctx, m, true); err != nil {
		return err
	}
	return daemon.ClearDead(m.Mountpoint, m.Source)
}

// awaitEnd waits for the end of m's daemon. Unseen or later holders may keep the file system; then
// awaitEnd returns an error with the holders.
func awaitEnd(ctx context.Context, pidfd int, m mounts.Mount) error {
	ended, err := waitFor(pidfd, mounts.Grace)
	if ended || err != nil {
		return err
	}
	if served, err := mounts.Served(m); served && err == nil {
		keepers, err := mounts.Holders(ctx, m)
		busy := &mounts.BusyError{Mountpoint: m.Mountpoint, Holders: keepers}
		return errors.Join(fmt.Errorf("unmounted here, but its daemon serves on until that ends: %w", busy), err)
	}
	if ended, err = waitFor(pidfd, daemon.EndTime); ended || err != nil {
		return err
	}
	return fmt.Errorf("unmounted, but the daemon has not ended within %v: its log says why", daemon.EndTime)
}

// waitFor reports whether the process ended within limit.
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
