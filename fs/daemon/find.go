package daemon

import (
	"context"
	"path/filepath"

	"vmcryptfs/fs/admin"
	"vmcryptfs/fs/datastore"
	"vmcryptfs/fs/mounts"
)

// KernelMount gives m as the kernel lists m, or as the kernel last listed m before the unmount.
func KernelMount(m admin.Mount) mounts.Mount {
	return mounts.Mount{ID: m.MountID, Device: m.Device, Mountpoint: m.Mountpoint, Type: mounts.FSType, Source: m.Backing}
}

// FindGone looks for a daemon whose mount was at path. The client is nil where there is none.
func FindGone(ctx context.Context, path string) (*admin.Client, admin.Mount, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, admin.Mount{}, err
	}
	if path, err = filepath.EvalSymlinks(path); err != nil {
		return nil, admin.Mount{}, err
	}
	return Find(ctx, func(m admin.Mount) bool { return m.Mountpoint == path })
}

// Find gives the first mount with a daemon for which wanted reports true. The client is nil where
// no mount fits. A silent daemon counts as none.
func Find(ctx context.Context, wanted func(admin.Mount) bool) (*admin.Client, admin.Mount, error) {
	dir, err := datastore.RunDir()
	if err != nil {
		return nil, admin.Mount{}, err
	}
	clients, found, _ := admin.Mounts(ctx, dir) // a silent daemon counts as none
	for i := range found {
		if wanted(found[i]) {
			return clients[i], found[i], nil
		}
	}
	return nil, admin.Mount{}, nil
}
