package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"vmcryptfs/advice"
	"vmcryptfs/fs/admin"
	"vmcryptfs/fs/datastore"
	"vmcryptfs/fs/moves"
	"vmcryptfs/fs/wire"
	"vmcryptfs/layout"
	"vmcryptfs/words"
)

const movesUsage = "list|pause|resume|cancel [ID|PATH…], or accept PATH"

// movesRun is a moves command.
type movesRun struct {
	*program
	do    string   // "list", or what a moves.Change does
	ids   []string // given
	paths []string // given
	keys  keyFlags
	json  bool
	yes   bool
}

// moves runs one of the commands about moves under way.
func (p *program) moves(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return advice.New(advice.Usagef("moves: no command given"), "usage: vmcryptfs moves "+movesUsage)
	}
	verbs := []string{"list", moves.DoPause, moves.DoResume, moves.DoCancel, moves.DoAccept}
	switch do := args[0]; {
	case do == "-h", do == "--help":
		p.printUsage("moves", movesUsage, "")
		return errHelped
	case !slices.Contains(verbs, do):
		return subcommand("moves", do, movesUsage, verbs...)
	}
	r := movesRun{program: p, do: args[0]}
	f := p.flags("moves " + r.do)
	f.BoolVar(&r.json, "json", false, "print JSON")
	usage, least, most := "[ID|PATH…] [--json]", 0, -1
	if r.do == moves.DoAccept {
		f.BoolVar(&r.yes, "yes", false, "ask no question")
		usage, least, most = "PATH [--yes] [--json]", 1, 1
	}
	r.keys.add(f)
	given, err := p.parse(f, args[1:], usage, least, most)
	if err != nil {
		return err
	}
	for _, g := range given {
		if _, err := layout.ParseFileID(g); err == nil && r.do != moves.DoAccept {
			r.ids = append(r.ids, g)
		} else {
			r.paths = append(r.paths, g)
		}
	}
	ctx, stop := interruptible(ctx)
	defer stop()
	return interrupted(ctx, r.run(ctx))
}

// run does it in the datastore of the paths or, without a path, in each mount of this host.
func (r *movesRun) run(ctx context.Context) error {
	if len(r.paths) == 0 {
		return r.everywhere(ctx)
	}
	root, which, err := pathsInDatastore("moves "+r.do, r.paths)
	if err != nil {
		return err
	}
	if r.do == moves.DoAccept {
		if err := r.mayAccept(ctx); err != nil {
			return err
		}
	}
	which = append(which, r.ids...)
	client, err := daemonOf(ctx, root)
	if err != nil {
		return err
	}
	var list []moves.View
	if client != nil {
		list, err = r.by(ctx, client, which)
	} else {
		list, err = r.here(ctx, root, which)
	}
	if err != nil {
		return requestFailure(err)
	}
	return r.print(list)
}

// by has a daemon do it.
func (r *movesRun) by(ctx context.Context, client *admin.Client, which []string) ([]moves.View, error) {
	if r.do != "list" {
		changed, err := client.ChangeMoves(ctx, moves.Change{Do: r.do, Which: which})
		return changed.Moves, err
	}
	all, err := client.Moves(ctx)
	return moves.Named(all.Moves, which), err
}

// everywhere does it in the mounts of this host.
func (r *movesRun) everywhere(ctx context.Context) error {
	dir, err := datastore.RunDir()
	if err != nil {
		return err
	}
	clients, _, err := admin.Mounts(ctx, dir)
	var list []moves.View
	for _, client := range clients {
		all, listErr := client.Moves(ctx)
		named := moves.Named(all.Moves, r.ids)
		if listErr == nil && r.do != "list" && (len(named) > 0 || len(r.ids) == 0) {
			var which wire.Paths
			for i := range named {
				which = append(which, named[i].ID)
			}
			named, listErr = r.by(ctx, client, which)
		}
		list, err = append(list, named...), errors.Join(err, listErr)
	}
	if none := moves.Missing(list, r.ids); len(none) > 0 {
		err = errors.Join(err, fmt.Errorf("%s: %w in a mount of this host", strings.Join(none, ", "), moves.ErrNoMove))
	}
	return errors.Join(r.print(list), err)
}

// here does it in a datastore that is not mounted: the moves are done in this process.
func (r *movesRun) here(ctx context.Context, root string, which []string) (list []moves.View, err error) {
	if r.do == moves.DoPause {
		return nil, advice.New(fmt.Errorf("%s is not mounted, so nothing moves there", root), "moves that are listed go on at the next mount")
	}
	err = movesHere(ctx, root, r.keys, func(m *moves.Manager, _ *datastore.Store, _ *slog.Logger) (err error) {
		switch r.do {
		case "list":
			list, err = m.Look(ctx)
			list = moves.Named(list, which)
		case moves.DoAccept:
			list, err = m.Accept(ctx, which[0])
		default:
			list, err = m.Finish(ctx, which, r.do == moves.DoCancel)
		}
		return err
	})
	return list, err
}

// mayAccept asks whether a move that is not listed is to go on.
func (r *movesRun) mayAccept(ctx context.Context) error {
	what := words.Printable(r.paths[0]) + " is half of a move that the sealed settings do not list. It may be a restore, or somebody may have put an old file back: nothing proves which."
	switch {
	case r.yes:
		fmt.Fprintln(r.stderr, what)
		return nil
	case !r.interactive():
		return advice.New(advice.Usagef("moves accept: nobody can be asked, and %s", what), "--yes accepts it, if you know that it is a restore")
	case r.ask(ctx, what+"\nGo on with the move? [y/N] ", false):
		return nil
	}
	return errors.New("nothing was accepted")
}

func (r *movesRun) print(list []moves.View) error {
	if r.json {
		return r.printJSON(append([]moves.View{}, list...))
	}
	if len(list) == 0 {
		fmt.Fprintln(r.stdout, "no moves")
		return nil
	}
	t := newTable(page{to: r.stdout}, "MOVE", "FILE", "KIND", "STATE", "SIZE", "LEFT")
	for i := range list {
		v := &list[i]
		state, left := string(v.State), v.Watermark
		if v.Why != "" {
			state += ": " + v.Why
		}
		if left == layout.AllInSource {
			left = v.Size
		}
		t.row(v.ID, v.Path, orDash(v.Kind), state, words.Size(v.Size), words.Size(left))
	}
	t.end()
	return nil
}

// moves prints the moves under way of a status.
func (p page) moves(s *moves.Status) {
	if s == nil {
		return
	}
	p.row("moves", "%d under way, %d of them paused; vmcryptfs moves list", s.Count, s.Paused)
	for i := range s.Refused {
		p.row("refused", "%s", p.red(words.Printable(s.Refused[i].Path+": "+words.Line(s.Refused[i].Why))))
	}
}
