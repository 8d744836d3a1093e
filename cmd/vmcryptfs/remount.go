package main

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"

	"vmcryptfs/advice"
	"vmcryptfs/fs/admin"
	"vmcryptfs/fs/daemon"
	"vmcryptfs/fs/mounts"
)

// remount is mount -o remount, and changes the kernel's options of an existing mount. Options for
// a new mount alone may be named, as in fstab, with the present value.
func (p *program) remount(ctx context.Context, c mountOptions) error {
	m, err := mounts.Find(c.Mountpoint)
	if err != nil {
		return err
	}
	backing, err := filepath.EvalSymlinks(c.Backing)
	if err != nil {
		return fmt.Errorf("BACKING: %w", err)
	}
	if backing != m.Source {
		return advice.Usagef("remount: %s is mounted at %s, and not %s: umount, then mount that", m.Source, m.Mountpoint, backing)
	}
	_, first, err := daemon.Find(ctx, func(d admin.Mount) bool { return d.Device == m.Device && d.Backing == m.Source })
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
	return client.Remount(ctx, c.named)
}

// fixed refuses options that no remount changes, unless the mount already has the same.
func (o *mountOptions) fixed(now mountOptions, datastore string) error {
	if now.Copy && slices.Contains(o.named, "rw") && !o.ReadOnly {
		return advice.Usagef("remount: the mount is of a copy (-o copy), which is for reading alone: umount, then mount it without that option")
	}
	for _, option := range []struct{ name, want, is string }{
		{"kek", o.KEK, now.KEK},
		{"kms", o.Keys.KMS, now.Keys.KMS},
		{"unencrypted", o.unencrypted, now.unencrypted},
		{"transport", o.Transport, now.Transport},
		{"datastore", o.Datastore, datastore},
	} {
		if option.want != "" && option.want != option.is {
			return advice.Usagef("remount cannot change %s: the mount has %s=%s, and %s=%s is asked for: umount, then mount again", option.name, option.name, option.is, option.name, option.want)
		}
	}
	for _, option := range []struct {
		name     string
		want, is bool
	}{
		{"allow_other", o.AllowOther != nil && *o.AllowOther, now.AllowOther != nil && *now.AllowOther},
		{"noallow_other", o.AllowOther != nil && !*o.AllowOther, now.AllowOther != nil && !*now.AllowOther},
		{"devkms", o.devkms, now.devkms},
		{"copy", o.Copy, now.Copy},
	} {
		if option.want && !option.is {
			return advice.Usagef("remount cannot change %s, which the mount does not have: umount, then mount again", option.name)
		}
	}
	return nil
}
