package main

import (
	"context"
	"fmt"

	"vmcryptfs/fs/admin"
	"vmcryptfs/fs/admin/mounts"
	"vmcryptfs/fs/datastore"
)

// lock wipes a mount's KEKs from memory.
func (p *program) lock(ctx context.Context, args []string) error {
	f := p.flags("lock")
	asJSON := f.Bool("json", false, "print JSON")
	args, err := p.parse(f, args, "MOUNTPOINT [--json]", 1, 1)
	if err != nil {
		return err
	}
	client, _, err := mountAt(ctx, args[0])
	if err != nil {
		return err
	}
	result, err := client.Lock(ctx)
	if err != nil {
		return fmt.Errorf("lock %s: %w", args[0], err)
	}
	if *asJSON {
		return p.printJSON(result)
	}
	fmt.Fprintf(p.stdout, "locked; %d open encrypted files keep their keys until they are closed\n", result.OpenFiles)
	return nil
}

// unlock makes a mount fetch its keys again.
func (p *program) unlock(ctx context.Context, args []string) error {
	f := p.flags("unlock")
	args, err := p.parse(f, args, "MOUNTPOINT", 1, 1)
	if err != nil {
		return err
	}
	client, _, err := mountAt(ctx, args[0])
	if err != nil {
		return err
	}
	if err := client.Unlock(ctx); err != nil {
		return fmt.Errorf("%s is unlocked, but cannot have its key (it is tried again when it is needed): %w", args[0], err)
	}
	fmt.Fprintln(p.stdout, "unlocked")
	return nil
}

// mountAt finds the daemon that serves mountpoint: mounts.ErrNotMounted, also if it is gone.
func mountAt(ctx context.Context, mountpoint string) (*admin.Client, admin.Mount, error) {
	m, err := mounts.Find(mountpoint)
	if err != nil {
		return nil, admin.Mount{}, err
	}
	dir, err := datastore.RunDir()
	if err != nil {
		return nil, admin.Mount{}, err
	}
	clients, found, err := admin.Mounts(ctx, dir)
	for i := range found {
		if found[i].Mountpoint == m.Mountpoint && found[i].Backing == m.Source {
			return clients[i], found[i], nil
		}
	}
	if err != nil {
		return nil, admin.Mount{}, fmt.Errorf("the daemon of %s does not answer: %w", m.Mountpoint, err)
	}
	if !isDead(m.Mountpoint) {
		return nil, admin.Mount{}, fmt.Errorf("the daemon of %s has no control socket in %s: ask as the user who mounted it, with the same $XDG_RUNTIME_DIR", m.Mountpoint, dir)
	}
	return nil, admin.Mount{}, fmt.Errorf("the daemon of %s is gone (vmcryptfs umount clears the mount): %w", m.Mountpoint, mounts.ErrNotMounted)
}
