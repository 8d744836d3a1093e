package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"vmcryptfs/fs/admin"
	"vmcryptfs/fs/admin/mounts"
	"vmcryptfs/fs/datastore"
)

// status shows a mount, or all of this user on this host.
func (p *program) status(ctx context.Context, args []string) error {
	f := p.flags("status")
	asJSON := f.Bool("json", false, "print JSON: an object for MOUNTPOINT, else an array")
	files := f.Bool("files", false, "list every file with its form, or what is wrong; as JSON one object a line")
	args, err := p.parse(f, args, "[MOUNTPOINT] [--json] [--files]", 0, 1)
	if err != nil {
		return err
	}
	if len(args) == 0 {
		return p.statusOfAll(ctx, *asJSON, *files)
	}
	client, _, err := mountAt(ctx, args[0])
	if errors.Is(err, mounts.ErrNotMounted) {
		client, _ = findGone(ctx, args[0]) // its status is told, and that it is not mounted
	}
	if client == nil {
		return err
	}
	return errors.Join(p.statusOf(ctx, client, args[0], *asJSON, *files), err)
}

// statusOf shows the mount at path.
func (p *program) statusOf(ctx context.Context, client *admin.Client, path string, asJSON, files bool) error {
	if files {
		return p.listFiles(ctx, client, asJSON)
	}
	s, err := client.Status(ctx)
	if err != nil {
		return fmt.Errorf("status of %s: %w", path, err)
	}
	if asJSON {
		return p.printJSON(s)
	}
	newPage(p.stdout).status(s)
	return nil
}

// statusOfAll shows all mounts. A daemon that does not answer is an error, after the
// others were shown.
func (p *program) statusOfAll(ctx context.Context, asJSON, files bool) error {
	if files {
		return usagef("status: --files needs a MOUNTPOINT")
	}
	dir, err := datastore.RunDir()
	if err != nil {
		return err
	}
	clients, found, silent := admin.Mounts(ctx, dir)
	all := []admin.Status{}
	for i, client := range clients {
		s, err := client.Status(ctx)
		if err != nil {
			silent = errors.Join(silent, fmt.Errorf("status of %s: %w", found[i].Mountpoint, err))
			continue
		}
		all = append(all, s)
	}
	if asJSON {
		return errors.Join(p.printJSON(all), silent)
	}
	if len(all) == 0 && silent == nil {
		fmt.Fprintln(p.stdout, "no vmcryptfs is mounted")
	}
	for i, s := range all {
		if i > 0 {
			fmt.Fprintln(p.stdout)
		}
		newPage(p.stdout).status(s)
	}
	return silent
}

// listFiles prints every file and then the counts.
func (p *program) listFiles(ctx context.Context, client *admin.Client, asJSON bool) error {
	out := json.NewEncoder(p.stdout)
	out.SetEscapeHTML(false)
	census, err := client.Files(ctx, func(f admin.File) error {
		if asJSON {
			return out.Encode(f)
		}
		_, err := fmt.Fprintf(p.stdout, "%-12s %-22s %s\n", f.Form, f.Rule, printable(f.Path))
		return err
	})
	if err != nil || !asJSON {
		return err
	}
	return out.Encode(admin.Summary{Census: &census})
}
