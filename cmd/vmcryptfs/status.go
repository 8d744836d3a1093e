package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"vmcryptfs/advice"
	"vmcryptfs/fs/admin"
	"vmcryptfs/fs/daemon"
	"vmcryptfs/fs/datastore"
	"vmcryptfs/fs/mounts"
	"vmcryptfs/words"
)

const statusUsage = "[MOUNTPOINT] [--json] [--files|--check]"

// status shows one mount, or all mounts of this user on this host.
func (p *program) status(ctx context.Context, args []string) error {
	f := p.flags("status")
	asJSON := f.Bool("json", false, "print JSON: an object for MOUNTPOINT, else an array")
	files := f.Bool("files", false, "list every file with its form, or what is wrong; as JSON one object a line")
	check := f.Bool("check", false, "a line for each thing that should be well; the exit code says if all are")
	args, err := p.parse(f, args, statusUsage, 0, 1)
	if err != nil {
		return err
	}
	switch {
	case *files && *check:
		return advice.Usagef("status: --files and --check go not together; choose one")
	case *files && len(args) == 0:
		return advice.Usagef("status: --files needs a MOUNTPOINT; name one")
	case *files:
		return p.listFiles(ctx, args[0], *asJSON)
	}
	var to reporter = glances{}
	if *check {
		to = checks{}
	}
	if len(args) == 1 {
		return p.statusOf(ctx, args[0], to, *asJSON)
	}
	return p.statusOfAll(ctx, to, *asJSON)
}

// view is the output for one mount.
type view struct {
	mountpoint string
	json       any
	print      func(page)
	err        error // the problem of the mount; nil: none
}

// reporter makes views, of mounts whose daemon answers and of others.
type reporter interface {
	served(ctx context.Context, client *admin.Client, m admin.Mount) view
	unserved(u unserved) view
	none(p *program, told bool) error // nothing is mounted; told: in JSON, already
}

// glances are views of the status.
type glances struct{}

func (glances) served(ctx context.Context, client *admin.Client, m admin.Mount) view {
	s, err := client.Status(ctx)
	if err != nil {
		return view{mountpoint: m.Mountpoint, err: fmt.Errorf("status of %s: %w", m.Mountpoint, err)}
	}
	return view{m.Mountpoint, s, func(to page) { to.status(s) }, nil}
}

func (glances) unserved(u unserved) view {
	return view{u.Mountpoint, u, func(to page) { to.unserved(u) }, u.err()}
}

func (glances) none(p *program, told bool) error {
	if !told {
		fmt.Fprintln(p.stdout, "no vmcryptfs is mounted")
	}
	return nil
}

// statusOf shows the mount at mountpoint. A dead mount is shown too, and so is a mount gone from
// the mountpoint and still served; the error then names the state.
func (p *program) statusOf(ctx context.Context, mountpoint string, to reporter, asJSON bool) error {
	client, m, err := daemonAt(ctx, mountpoint)
	if err == nil {
		v := to.served(ctx, client, m)
		return errors.Join(p.show(v, asJSON), v.err)
	}
	if at, findErr := mounts.Find(mountpoint); findErr == nil {
		if u := stateOf(at); u.State != "" {
			return errors.Join(p.show(to.unserved(u), asJSON), err)
		}
	}
	if errors.Is(err, mounts.ErrNotMounted) {
		if client, m, _ := daemon.FindGone(ctx, mountpoint); client != nil {
			return errors.Join(p.show(to.served(ctx, client, m), asJSON), err)
		}
	}
	return err
}

// show prints one mount. A mount without an answer has no output.
func (p *program) show(v view, asJSON bool) error {
	switch {
	case v.json == nil:
	case asJSON:
		return p.printJSON(v.json)
	default:
		v.print(newPage(p.stdout))
	}
	return nil
}

// statusOfAll shows all mounts. The problems of single mounts are the error, after the output.
func (p *program) statusOfAll(ctx context.Context, to reporter, asJSON bool) error {
	views, err := viewAll(ctx, to)
	if len(views) == 0 && err == nil {
		err = to.none(p, asJSON)
	}
	all := []any{} // in JSON: [], not null
	for i, v := range views {
		err = errors.Join(err, v.err)
		if v.json == nil {
			continue
		}
		all = append(all, v.json)
		if !asJSON {
			if i > 0 {
				fmt.Fprintln(p.stdout)
			}
			v.print(newPage(p.stdout))
		}
	}
	if asJSON {
		err = errors.Join(p.printJSON(all), err)
	}
	return err
}

// viewAll makes the views of all mounts, sorted by mountpoint. The error is about sockets without
// an answer.
func viewAll(ctx context.Context, to reporter) ([]view, error) {
	dir, err := datastore.RunDir()
	if err != nil {
		return nil, err
	}
	var views []view
	clients, found, silent := admin.Mounts(ctx, dir)
	for i, client := range clients {
		views = append(views, to.served(ctx, client, found[i]))
	}
	others, err := findUnserved(found)
	for _, u := range others {
		views = append(views, to.unserved(u))
	}
	slices.SortStableFunc(views, func(a, b view) int { return cmp.Compare(a.mountpoint, b.mountpoint) })
	return views, errors.Join(silent, err)
}

// listFiles prints every file, by path, and then the counts.
func (p *program) listFiles(ctx context.Context, mountpoint string, asJSON bool) error {
	client, _, err := daemonAt(ctx, mountpoint)
	if err != nil {
		return err
	}
	var files []admin.File
	progress := p.progress("list of "+mountpoint, 0)
	census, err := client.Files(ctx, func(f admin.File) error {
		files = append(files, f)
		progress.draw(func() string { return fmt.Sprintf("%d files", len(files)) })
		return nil
	})
	progress.end()
	if err != nil {
		return err
	}
	slices.SortFunc(files, func(a, b admin.File) int { return cmp.Compare(a.Path, b.Path) })
	out := json.NewEncoder(p.stdout)
	out.SetEscapeHTML(false)
	for _, f := range files {
		if !asJSON {
			fmt.Fprintf(p.stdout, "%-12s %-22s %s\n", f.Form, f.Rule, words.Printable(f.Path))
		} else if err := out.Encode(f); err != nil {
			return err
		}
	}
	if !asJSON {
		return nil
	}
	return out.Encode(admin.Summary{Census: &census})
}
