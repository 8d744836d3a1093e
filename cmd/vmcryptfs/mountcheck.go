package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"vmcryptfs/fs/ability"
	"vmcryptfs/fs/datastore"
	"vmcryptfs/layout"
	"vmcryptfs/words"
)

// checkBacking prints the abilities of BACKING's file system, with or without a datastore. An
// error follows the output and gives the reason why the directory cannot be served.
func (p *program) checkBacking(ctx context.Context, path string, asJSON bool) error {
	r, err := probeBacking(ctx, path)
	if err != nil {
		return fmt.Errorf("BACKING %s: %w", path, err)
	}
	if asJSON {
		err = p.printJSON(r)
	} else {
		newPage(p.stdout).abilities(r)
	}
	if unfit := r.Err(); unfit != nil {
		return fmt.Errorf("BACKING %s: %w", path, unfit)
	}
	return err
}

// probeBacking tests the file system where a mount does, in the datastore's own directory.
func probeBacking(ctx context.Context, path string) (*ability.Report, error) {
	const flags = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC
	dir, err := unix.Open(path, flags, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(dir)
	own, err := unix.Openat(dir, datastore.Dir, flags|unix.O_NOFOLLOW, 0)
	switch {
	case err == nil:
		defer unix.Close(own)
		dir = own
	case !errors.Is(err, unix.ENOENT):
		return nil, fmt.Errorf("open %s: %w", datastore.Dir, err)
	}
	host, err := datastore.HostID()
	if err != nil {
		return nil, err
	}
	return ability.Probe(ctx, dir, layout.ReservedPrefix+"-"+host+"-")
}

// abilities prints all facts about a file system.
func (p page) abilities(r *ability.Report) {
	p.row("file system", "%s", words.Printable(r.FileSystem))
	for _, a := range ability.All() {
		f := r.Abilities[a]
		text := string(f.Answer)
		switch {
		case f.Answer != ability.No:
			text = strings.TrimSuffix(text+", "+f.Detail, ", ")
		case a.Required():
			text = p.red(fmt.Sprintf("no: %s (%s)", a.Without(), words.Printable(f.Detail)))
		default:
			text = fmt.Sprintf("no: %s (%s)", a.Without(), words.Printable(f.Detail))
		}
		fmt.Fprintf(p.to, "  %-13s %s\n", a, text)
	}
}

// abilitiesLine is the file system in a line.
func abilitiesLine(r *ability.Report) string {
	var missing, untried []string
	for _, a := range ability.All() {
		switch r.Abilities[a].Answer {
		case ability.No:
			missing = append(missing, string(a))
		case ability.Untried:
			untried = append(untried, string(a))
		}
	}
	text := cmp.Or(words.Printable(r.FileSystem), "unknown")
	if len(missing) > 0 {
		text += ", without " + strings.Join(missing, ", ")
	}
	if len(untried) > 0 {
		text += fmt.Sprintf(", %d of %d abilities not tried", len(untried), len(ability.All()))
	}
	return text
}
