package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	"github.com/spf13/pflag"

	"vmcryptfs/advice"
	"vmcryptfs/fs/admin"
	"vmcryptfs/fs/daemon"
	"vmcryptfs/fs/datastore"
	"vmcryptfs/fs/moves"
	"vmcryptfs/words"
)

// applyFlags are the flags of a command that moves files.
type applyFlags struct {
	rate string
	jobs int
}

func (a *applyFlags) add(f *pflag.FlagSet) {
	f.StringVar(&a.rate, "rate", "", "the most bytes a second that are copied, with a unit: 50M")
	f.IntVar(&a.jobs, "jobs", 1, "how many files are moved side by side")
}

// applyRun is a command that moves files, under way.
type applyRun struct {
	*program
	command []string // as it is given again, with its paths
	root    string
	request moves.Request
	keys    keyFlags
	json    bool
	line    *progress
}

// policyApply moves what differs from what its place wants.
func (p *program) policyApply(ctx context.Context, args []string) error {
	var a applyFlags
	run := applyRun{program: p}
	f := p.flags("policy apply")
	dry := f.Bool("dry-run", false, "say what would be moved, and move nothing")
	f.BoolVar(&run.json, "json", false, "print JSON")
	a.add(f)
	run.keys.add(f)
	paths, err := p.parse(f, args, "DIR… [--dry-run] [--rate BYTES/s] [--jobs N] [--json]", 1, -1)
	if err != nil {
		return err
	}
	run.command = append([]string{"vmcryptfs", "policy", "apply"}, paths...)
	if err := run.prepare("policy apply", paths, a); err != nil {
		return err
	}
	ctx, stop := interruptible(ctx)
	defer stop()
	if *dry {
		return run.dryRun(ctx)
	}
	return run.do(ctx)
}

// rekeyDeep gives encrypted files new DEKs.
func (p *program) rekeyDeep(ctx context.Context, paths []string, a applyFlags, k keyFlags, asJSON bool) error {
	run := applyRun{program: p, keys: k, json: asJSON, request: moves.Request{Deep: true}}
	run.command = append([]string{"vmcryptfs", "rekey", "--deep"}, paths...)
	if err := run.prepare("rekey", paths, a); err != nil {
		return err
	}
	ctx, stop := interruptible(ctx)
	defer stop()
	return run.do(ctx)
}

func (r *applyRun) prepare(name string, paths []string, a applyFlags) (err error) {
	if a.jobs < 1 {
		return advice.Usagef("%s: --jobs %d", name, a.jobs)
	}
	if r.request.Rate, err = parseRate(a.rate); err != nil {
		return err
	}
	r.request.Jobs = a.jobs
	r.root, r.request.Paths, err = pathsInDatastore(name, paths)
	r.line = r.progress("moves", 0)
	if a.rate != "" {
		r.command = append(r.command, "--rate", a.rate)
	}
	if a.jobs > 1 {
		r.command = append(r.command, "--jobs", strconv.Itoa(a.jobs))
	}
	return err
}

func (r *applyRun) asCheck() moves.Check {
	return moves.Check{Paths: r.request.Paths, Deep: r.request.Deep, Rate: r.request.Rate}
}

func (r *applyRun) dryRun(ctx context.Context) error {
	result, err := checkPolicies(ctx, r.root, r.keys, r.asCheck())
	if err != nil {
		return requestFailure(interrupted(ctx, err))
	}
	r.warn(result.Checked)
	if r.json {
		return r.printJSON(struct {
			Differ []moves.Differ `json:"differ"`
			moves.Checked
		}{result.Differ, result.Checked})
	}
	page{to: r.stdout}.differ(result)
	return nil
}

// warn says what the moves need beside what is free anyway.
func (r *applyRun) warn(c moves.Checked) {
	if c.Shares && c.Bytes > 0 {
		fmt.Fprintf(r.stderr, "note: the file system of %s can share blocks between files and snapshots, and what is shared is not freed: up to %s more space is needed\n", words.Printable(r.root), words.Size(c.Extra))
	}
}

// do moves, and prints what came of it.
func (r *applyRun) do(ctx context.Context) error {
	sum, err := r.apply(ctx)
	r.line.end()
	if err != nil && sum.Moved+sum.Failed == 0 && ctx.Err() == nil {
		return fmt.Errorf("%s: %w", r.root, requestFailure(err))
	}
	if r.json {
		err = errors.Join(err, r.printJSON(sum))
	} else {
		r.print(sum)
	}
	return r.failure(ctx, sum, err)
}

// apply has the datastore's daemon move or, without a mount, moves in this process.
func (r *applyRun) apply(ctx context.Context) (sum moves.Summary, err error) {
	client, err := daemonOf(ctx, r.root)
	if err != nil {
		return sum, err
	}
	if client != nil {
		return r.byDaemon(ctx, client)
	}
	err = movesHere(ctx, r.root, r.keys, func(m *moves.Manager, _ *datastore.Store, log *slog.Logger) error {
		checked, err := m.Check(ctx, r.asCheck(), func(moves.Differ) error { return nil })
		if err != nil {
			return err
		}
		r.warn(checked)
		sum, err = m.Apply(ctx, r.request, func(e moves.Event) error { r.told(e); return nil })
		daemon.LogMoves(log, sum, err)
		sum.Rest = sum.AsTold()
		return err
	})
	return sum, err
}

func (r *applyRun) byDaemon(ctx context.Context, client *admin.Client) (moves.Summary, error) {
	checked, err := client.CheckPolicies(ctx, r.asCheck(), func(moves.Differ) error { return nil })
	if err != nil {
		return moves.Summary{}, err
	}
	r.warn(checked)
	return client.ApplyPolicies(ctx, r.request, r.told)
}

// told shows the progress on a terminal.
func (r *applyRun) told(e moves.Event) {
	if !r.line.redraw {
		return
	}
	r.line.draw(func() string {
		text := fmt.Sprintf("%d of %d files", e.Moved, e.Files)
		if e.Of > 0 {
			text += fmt.Sprintf(", %s of %s", percent(e.Bytes, e.Of), words.Size(e.Of))
		}
		if e.Rate > 0 {
			text += ", " + words.Size(e.Rate) + "/s"
		}
		if e.Left > 0 {
			text += ", " + words.Age(time.Duration(e.Left)*time.Second) + " left"
		}
		return text
	})
}

// print says what was moved.
func (r *applyRun) print(sum moves.Summary) {
	to := page{to: r.stdout}
	to.row("moved", "%d files, %s", sum.Moved, words.Size(sum.Bytes))
	to.remains(&sum.Rest)
	if sum.Left > 0 {
		to.row("differ yet", "%d files", sum.Left)
	}
	if sum.Moved > 0 {
		to.row("old content", "its blocks are freed; what a medium, a snapshot or a backup keeps of them is beyond this program (fstrim(8) discards)")
	}
}

// failure explains an error, and adds the command that goes on.
func (r *applyRun) failure(ctx context.Context, sum moves.Summary, err error) error {
	again := words.Command(append(r.command, r.keys.words()...))
	switch {
	case err != nil:
		return advice.New(fmt.Errorf("%s: %w", r.root, interrupted(ctx, requestFailure(err))), "what has begun is paused; go on with: "+again)
	case sum.Complete:
		return nil
	case sum.Failed > 0:
		return advice.New(fmt.Errorf("%s: %w", r.root, sum.Err()), "mend what remains, then go on with: "+again)
	}
	return advice.New(fmt.Errorf("%s: %w", r.root, &differsError{files: sum.Left}), "go on with: "+again)
}
