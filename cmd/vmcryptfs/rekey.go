package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"vmcryptfs/fs/admin"
	"vmcryptfs/fs/admin/mounts"
	"vmcryptfs/fs/datastore"
	"vmcryptfs/fs/rekey"
	"vmcryptfs/keys"
)

const rekeyUsage = "PATH… [--to ID|--new] [--add PROVIDER] [--drop PROVIDER] [--json]"

// rekey puts files and trees under another KEK, in the mount's daemon if there is one.
func (p *program) rekey(ctx context.Context, args []string) error {
	var r rekey.Request
	var k keyFlags
	f := p.flags("rekey")
	f.StringVar(&r.To, "to", "", "an existing key's identifier (default: the datastore's current key)")
	f.BoolVar(&r.New, "new", false, "the KMS makes a new key; for a whole datastore it becomes the current one, as one named by --to does")
	f.StringVar(&r.Add, "add", "", "have a locker of this provider too; --to and --new then are about its keys")
	f.StringVar(&r.Drop, "drop", "", "remove this provider's lockers, where another one opens the file")
	asJSON := f.Bool("json", false, "print JSON")
	k.add(f)
	paths, err := p.parse(f, args, rekeyUsage, 1, -1)
	if err != nil {
		return err
	}
	root, err := datastoreOf(paths, &r)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(ctx, unix.SIGINT, unix.SIGTERM)
	defer stop()
	sum, err := p.rekeyIn(ctx, root, r, k)
	if err == nil {
		err = sum.Err()
	} else if sum.Passes == 0 { // it did not begin: nothing to tell
		return rekeyError(root, sum, err)
	}
	if *asJSON {
		return errors.Join(rekeyError(root, sum, err), p.printJSON(sum))
	}
	p.printRekey(sum, r.Drop)
	return rekeyError(root, sum, err)
}

// rekeyError says how a rekey failed.
func rekeyError(root string, sum admin.RekeySummary, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, rekey.ErrRequest):
		return &usageError{err}
	case errors.Is(err, context.Canceled):
		return fmt.Errorf("rekey %s: interrupted: every file opens; run it again to go on", root)
	case sum.Created && !sum.Current && sum.Rekeyed == 0:
		return fmt.Errorf("rekey %s: key %q was made at provider %q and is not used: %w", root, sum.Identifier, sum.Provider, err)
	}
	return fmt.Errorf("rekey %s: %w", root, err)
}

// datastoreOf finds the one datastore that all paths lie in, given below its mount or its
// BACKING, and gives the request their paths below BACKING.
func datastoreOf(paths []string, r *rekey.Request) (root string, err error) {
	for _, path := range paths {
		in, rel, err := placeInDatastore(path)
		if err != nil {
			return "", err
		}
		if root != "" && in != root {
			return "", usagef("rekey: %s and %s are different datastores: one at a time", root, in)
		}
		root = in
		r.Paths = append(r.Paths, rel)
	}
	return root, nil
}

// placeInDatastore splits path into BACKING and the path below it.
func placeInDatastore(path string) (root, rel string, err error) {
	at, _, err := mounts.Backing(path)
	if err != nil {
		return "", "", err
	}
	if at, err = filepath.Abs(at); err != nil {
		return "", "", err
	}
	if at, err = filepath.EvalSymlinks(at); err != nil {
		return "", "", err
	}
	for root = at; ; root = filepath.Dir(root) {
		_, err := os.Lstat(filepath.Join(root, datastore.Dir, datastore.SettingsName))
		if err == nil {
			rel, err = filepath.Rel(root, at)
			return root, rel, err
		}
		if !errors.Is(err, os.ErrNotExist) && !errors.Is(err, unix.ENOTDIR) {
			return "", "", err
		}
		if root == "/" {
			return "", "", fmt.Errorf("%s: %w", path, datastore.ErrNone)
		}
	}
}

// rekeyIn has the daemon of the datastore do r or, if it is not mounted, does it here.
func (p *program) rekeyIn(ctx context.Context, root string, r rekey.Request, k keyFlags) (admin.RekeySummary, error) {
	line := p.progress("rekey", 0)
	defer line.end()
	client, err := daemonOf(ctx, root)
	if err != nil {
		return admin.RekeySummary{}, err
	}
	if client != nil {
		return client.Rekey(ctx, r, func(e admin.RekeyProgress) {
			line.files(e.Pass, e.Files, e.Rekeyed, e.Failed)
		})
	}
	sum, err := rekeyHere(ctx, root, r, k, func(e rekey.Event) error {
		line.files(e.Pass, e.Files, e.Rekeyed, e.Failed)
		return nil
	})
	return admin.NewRekeySummary(sum), err
}

// daemonTime is how long a daemon may take to say who it is.
const daemonTime = 10 * time.Second

// daemonOf finds the daemon of the datastore at root, nil if it is not mounted on this
// host. One that does not answer counts as none: it holds the lock, which then says so.
func daemonOf(ctx context.Context, root string) (*admin.Client, error) {
	dir, err := datastore.RunDir()
	if err != nil {
		return nil, err
	}
	store, err := datastore.Open(root, false)
	if err != nil {
		return nil, err
	}
	defer store.Close()
	client := admin.NewClient(dir, store.Settings().ID.String())
	ask, cancel := context.WithTimeout(ctx, daemonTime)
	defer cancel()
	// A copy of the datastore has the same id.
	m, err := client.Mount(ask)
	if err != nil || m.Backing != store.Path() {
		return nil, ctx.Err()
	}
	return client, nil
}

// rekeyHere does r with the datastore's lock held.
func rekeyHere(ctx context.Context, root string, r rekey.Request, k keyFlags, each func(rekey.Event) error) (rekey.Summary, error) {
	store, err := datastore.Open(root, true)
	if err != nil {
		return rekey.Summary{}, err
	}
	defer store.Close()
	if err := keys.HardenProcess(); err != nil {
		return rekey.Summary{}, fmt.Errorf("protect the memory for keys: %w", err)
	}
	source, err := openKeys(ctx, k, slog.New(slog.DiscardHandler))
	if err != nil {
		return rekey.Summary{}, err
	}
	defer source.close()
	c := rekey.Config{Store: store, Keys: source.cache, Label: labelOf(store.Settings().ID.String())}
	sum, err := rekey.Run(ctx, c, r, each)
	if err != nil && source.note != "" {
		err = fmt.Errorf("%w: %s", err, source.note)
	}
	return sum, err
}

// files tells how far a rekey is.
func (l *progress) files(pass int, files, rekeyed, failed int64) {
	if l.to == nil || time.Since(l.drawn) < redrawEvery {
		return
	}
	l.drawn = time.Now()
	fmt.Fprintf(l.to, "\r%s: pass %d, %d files seen, %d rekeyed, %d failed\x1b[K", l.label, pass, files, rekeyed, failed)
}

// printRekey prints a summary for people; drop is the provider whose lockers went.
func (p *program) printRekey(sum admin.RekeySummary, drop string) {
	to := page{to: p.stdout}
	if sum.Identifier != "" {
		note := ""
		if sum.Created {
			note = ", new"
		}
		if sum.Current {
			note += ", now the datastore's current key"
		}
		to.row("key", "%s of provider %s%s", printable(sum.Identifier), sum.Provider, note)
	}
	to.row("rekeyed", "%d files; %d needed nothing", sum.Rekeyed, sum.Already)
	if sum.Clear > 0 {
		to.row("clear", "%d files, which have no key", sum.Clear)
	}
	if drop != "" && sum.Rekeyed == 0 && sum.Failed == 0 {
		to.row("dropped", "nothing: no file had a locker of provider %s", printable(drop))
	}
	for _, f := range sum.Failures {
		to.row("remains", "%s: %s", printable(f.Path), oneLine(f.Message))
	}
	if n := sum.Failed - int64(len(sum.Failures)); n > 0 {
		to.row("remains", "%d more", n)
	}
}
