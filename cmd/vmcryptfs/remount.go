package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"vmcryptfs/advice"
	"vmcryptfs/fs/admin"
	"vmcryptfs/fs/mounts"
)

// remount is mount -o remount: of a mount that is there it changes what the kernel can change. What
// only a new mount could change may be named, as fstab does, and has to be as it is.
func (p *program) remount(ctx context.Context, c mountConfig) error {
	m, err := mounts.Find(c.mountpoint)
	if err != nil {
		return err
	}
	backing, err := filepath.EvalSymlinks(c.backing)
	if err != nil {
		return fmt.Errorf("BACKING: %w", err)
	}
	if backing != m.Source {
		return advice.Usagef("remount: %s is mounted at %s, and not %s: umount, then mount that", m.Source, m.Mountpoint, backing)
	}
	_, first, err := findDaemon(ctx, func(d admin.Mount) bool { return d.Device == m.Device })
	if err == nil && first.Device != "" && first.MountID != m.ID {
		return advice.Usagef("remount: %s is a bind mount of %s: mount -o remount,bind,… changes it alone", m.Mountpoint, first.Mountpoint)
	}
	client, d, err := mountAt(ctx, m.Mountpoint)
	if err != nil {
		return err
	}
	var now mountOptions
	if err := now.add(d.Options, true); err != nil {
		return fmt.Errorf("remount %s: its options are %q: %w", m.Mountpoint, d.Options, err)
	}
	if err := c.fixed(now, d.Datastore); err != nil {
		return err
	}
	return client.Remount(ctx, c.options.named)
}

// fixed refuses options that no remount changes, where they are others than those of the mount.
func (c *mountConfig) fixed(now mountOptions, datastore string) error {
	o := &c.options
	if now.copied && slices.Contains(o.named, "rw") && !o.readOnly {
		return advice.Usagef("remount: the mount is of a copy (-o copy), which is for reading alone: umount, then mount it without that option")
	}
	for _, option := range []struct{ name, want, is string }{
		{"kek", o.kek, now.kek},
		{"kms", c.keys.kms, now.kms},
		{"unencrypted", o.unencrypted, now.unencrypted},
		{"transport", o.transport, now.transport},
		{"datastore", o.datastore, datastore},
	} {
		if option.want != "" && option.want != option.is {
			return advice.Usagef("remount cannot change %s: the mount has %s=%s, and %s=%s is asked for: umount, then mount again", option.name, option.name, option.is, option.name, option.want)
		}
	}
	for _, option := range []struct {
		name     string
		want, is bool
	}{
		{"allow_other", o.allowOther != nil && *o.allowOther, now.allowOther != nil && *now.allowOther},
		{"noallow_other", o.allowOther != nil && !*o.allowOther, now.allowOther != nil && !*now.allowOther},
		{"devkms", o.devkms, now.devkms},
		{"copy", o.copied, now.copied},
	} {
		if option.want && !option.is {
			return advice.Usagef("remount cannot change %s, which the mount does not have: umount, then mount again", option.name)
		}
	}
	return nil
}

// Remount changes options of the kernel's; read-only is one of this program's too: then it writes
// nothing to BACKING any more, so that this can be taken for a snapshot or become read-only itself.
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
	if d.config.options.copied && !on { // by mount -i
		d.log.Warn("a copy is for reading alone; making it read-only again", "mountpoint", m.Mountpoint)
		return mounts.Remount(ctx, m, []string{"ro"})
	}
	if on {
		d.unfit = false
	}
	if d.unfit || d.fs.ReadOnly() == on {
		return nil
	}
	if err := d.fs.SetReadOnly(on); err != nil {
		d.unfit = true // until it was read-only again: the tests of BACKING are not to be made every moment
		err = fmt.Errorf("remount %s: it stays read-only, since BACKING is unfit to be written: %w", m.Mountpoint, err)
		return errors.Join(err, mounts.Remount(ctx, m, []string{"ro"}))
	}
	d.log.Info("the mount's mode has changed", "read_only", on)
	if !on {
		return nil
	}
	err := d.stopRekey(ctx)
	if syncErr := unix.Syncfs(d.store.Fd()); syncErr != nil && !errors.Is(syncErr, unix.EROFS) {
		err = errors.Join(err, fmt.Errorf("remounted read-only, but what was written is not all on disk: sync %s: %w", d.config.backing, syncErr))
	}
	return err
}
