package daemon

import (
	"context"
	"errors"
	"fmt"

	"vmcryptfs/fs/admin"
	"vmcryptfs/fs/datastore"
	"vmcryptfs/fs/mounts"
)

// besideOriginal explains err where the control socket of this datastore is taken: BACKING is
// mounted already, or is a copy of a mounted datastore. The error for a copy names the remedy.
func (d *daemon) besideOriginal(ctx context.Context, err error) error {
	if !errors.Is(err, admin.ErrInUse) {
		return err
	}
	dir, dirErr := datastore.RunDir()
	if dirErr != nil {
		return errors.Join(err, dirErr)
	}
	ctx, cancel := context.WithTimeout(ctx, mounts.Grace)
	defer cancel()
	other, askErr := admin.NewClient(dir, d.name()).Mount(ctx)
	switch {
	case askErr != nil:
		return err
	case other.Backing == d.config.Backing:
		return fmt.Errorf("%w at %s", err, other.Mountpoint)
	}
	return fmt.Errorf("%w: %s is a copy of the datastore that is mounted at %s from %s, or that one is a copy of it; to take files from it, mount it with -o ro,copy", err, d.config.Backing, other.Mountpoint, other.Backing)
}
