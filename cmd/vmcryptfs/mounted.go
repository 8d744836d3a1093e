package main

import (
	"context"
	"errors"
	"fmt"

	"vmcryptfs/advice"
	"vmcryptfs/fs/admin"
	"vmcryptfs/fs/daemon"
	"vmcryptfs/fs/datastore"
	"vmcryptfs/fs/mounts"
	"vmcryptfs/words"
)

// meant gives the mount meant by path: the mount at path, else the mount that contains path, else
// a mount of the BACKING that is or contains path. Otherwise the error is mounts.ErrNotMounted.
func meant(path string) (mounts.Mount, error) {
	m, err := mounts.Find(path)
	if !errors.Is(err, mounts.ErrNotMounted) {
		return m, err
	}
	if m, _, err := mounts.Above(path); err == nil {
		return m, nil
	}
	if of, err := mounts.Of(path); err == nil && len(of) > 0 {
		return of[0], nil
	}
	return mounts.Mount{}, err
}

// notMounted adds the mount perhaps meant to err, the error of a path without a vmcryptfs.
func notMounted(path string, err error) error {
	if !errors.Is(err, mounts.ErrNotMounted) {
		return err
	}
	m, meantErr := meant(path)
	if meantErr != nil {
		return err
	}
	how := "lies in the mount"
	if of, _ := mounts.Of(path); len(of) > 0 {
		how = "is BACKING of the mount"
	}
	return advice.New(fmt.Errorf("%w, it %s %s", err, how, m.Mountpoint), words.Command([]string{"vmcryptfs", "umount", m.Mountpoint}))
}

// mountAt finds the daemon with a mount at mountpoint. For no mount and for a dead mount, the
// error is mounts.ErrNotMounted.
func mountAt(ctx context.Context, mountpoint string) (*admin.Client, admin.Mount, error) {
	m, err := mounts.Find(mountpoint)
	if err != nil {
		return nil, admin.Mount{}, err
	}
	return daemonOfMount(ctx, m, func(of admin.Mount) bool {
		return of.Mountpoint == m.Mountpoint && of.Backing == m.Source
	})
}

// daemonAt finds the daemon of the mount meant by path, with the errors of mountAt.
func daemonAt(ctx context.Context, path string) (*admin.Client, admin.Mount, error) {
	m, err := meant(path)
	if err != nil {
		return nil, admin.Mount{}, err
	}
	return daemonOfMount(ctx, m, func(of admin.Mount) bool { return serves(of, m) })
}

// daemonOfMount finds the daemon of m, the first whose mount satisfies serves.
func daemonOfMount(ctx context.Context, m mounts.Mount, serves func(admin.Mount) bool) (*admin.Client, admin.Mount, error) {
	dir, err := datastore.RunDir()
	if err != nil {
		return nil, admin.Mount{}, err
	}
	clients, found, err := admin.Mounts(ctx, dir)
	for i := range found {
		if serves(found[i]) {
			return clients[i], found[i], nil
		}
	}
	if err != nil {
		return nil, admin.Mount{}, fmt.Errorf("the daemon of %s does not answer: %w", m.Mountpoint, err)
	}
	if !daemon.IsDead(m.Mountpoint) {
		return nil, admin.Mount{}, fmt.Errorf("the daemon of %s has no control socket in %s; ask as the user who mounted it, with the same $XDG_RUNTIME_DIR", m.Mountpoint, dir)
	}
	return nil, admin.Mount{}, fmt.Errorf("the daemon of %s is gone (vmcryptfs umount clears the mount): %w", m.Mountpoint, mounts.ErrNotMounted)
}

// serves reports whether the daemon of the mount of serves m: m is the daemon's mount or a bind
// mount of the daemon's. A mount of the same BACKING left by a dead daemon is another file system.
func serves(of admin.Mount, m mounts.Mount) bool {
	if of.Backing != m.Source {
		return false
	}
	if of.Mountpoint == m.Mountpoint {
		return true
	}
	own, err := mounts.Find(of.Mountpoint)
	return err == nil && own.Device == m.Device
}
