package daemon

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"vmcryptfs/fs/mounts"
)

// Remount changes mount options kept by the kernel. With the option ro, this program also stops
// writing to BACKING, so that BACKING can be snapshot or become read-only itself.
func (d *daemon) Remount(ctx context.Context, options []string) error {
	d.mu.Lock()
	server := d.server
	d.mu.Unlock()
	d.modes.Lock()
	defer d.modes.Unlock()
	m, err := server.Find()
	if err == nil {
		err = mounts.Remount(ctx, m, options)
	}
	if err != nil {
		return err
	}
	if m, err = server.Find(); err != nil {
		return err
	}
	d.unfit = false
	d.log.Info("remounted", "mountpoint", m.Mountpoint, "options", m.Options)
	return d.follow(ctx, m)
}

// follow is read-only or not as the kernel has m. d.modes is held.
func (d *daemon) follow(ctx context.Context, m mounts.Mount) error {
	on := m.ReadOnlyAll()
	if d.config.Copy && !on { // by mount -i
		d.log.Warn("a copy is for reading alone; making it read-only again", "mountpoint", m.Mountpoint)
		return mounts.Remount(ctx, m, []string{"ro"})
	}
	if on {
		d.unfit = false
	}
	if d.unfit || d.fs.ReadOnly() == on {
		return nil
	}
	if on {
		d.moves.Halt(becauseReadOnly)
	}
	if err := d.fs.SetReadOnly(on); err != nil {
		d.unfit = true // until the mount is read-only: the tests of BACKING are too slow for every look
		err = fmt.Errorf("remount %s: it stays read-only, since BACKING is unfit to be written: %w", m.Mountpoint, err)
		return errors.Join(err, mounts.Remount(ctx, m, []string{"ro"}))
	}
	d.log.Info("the mount's mode has changed", "read_only", on)
	if !on {
		d.moves.Release(becauseReadOnly)
		return nil
	}
	err := d.stopWork(ctx)
	if syncErr := unix.Syncfs(d.store.Fd()); syncErr != nil && !errors.Is(syncErr, unix.EROFS) {
		err = errors.Join(err, fmt.Errorf("remounted read-only, but what was written is not all on disk: sync %s: %w", d.config.Backing, syncErr))
	}
	return err
}
