package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/spf13/pflag"

	"vmcryptfs/advice"
	"vmcryptfs/fs/admin"
	"vmcryptfs/fs/daemon"
	"vmcryptfs/fs/datastore"
	"vmcryptfs/fs/policy"
	"vmcryptfs/fs/rekey"
)

const rekeyUsage = "PATH… [--to ID|--new] [--add PROVIDER] [--drop PROVIDER] [--json], or --deep PATH… [--rate BYTES/s] [--jobs N]"

// rekey puts files and trees under another KEK, in the mount's daemon if there is one.
func (p *program) rekey(ctx context.Context, args []string) error {
	var r rekey.Request
	var k keyFlags
	f := p.flags("rekey")
	f.StringVar(&r.To, "to", "", "an existing key's identifier (default: the key of each file's place)")
	f.BoolVar(&r.New, "new", false, "the KMS makes a new key; for a whole datastore, or a place with a key of its own, it becomes the current one, as one named by --to does")
	f.StringVar(&r.Add, "add", "", "have a locker of this provider too; --to and --new then are about its keys")
	f.StringVar(&r.Drop, "drop", "", "remove this provider's lockers, where another one opens the file")
	deep := f.Bool("deep", false, "new data keys, and so new ciphertext, for the encrypted files; they are copied while in use")
	var a applyFlags
	a.add(f)
	asJSON := f.Bool("json", false, "print JSON")
	k.add(f)
	paths, err := p.parse(f, args, rekeyUsage, 1, -1)
	if err != nil {
		return err
	}
	if err := checkDeep(f, *deep); err != nil {
		return err
	}
	if *deep {
		return p.rekeyDeep(ctx, paths, a, k, *asJSON)
	}
	root, err := datastoreOf(paths, &r)
	if err != nil {
		return err
	}
	ctx, stop := interruptible(ctx)
	defer stop()
	run := &rekeyRun{root: root, paths: paths, request: r, keys: k, line: p.progress("rekey", 0)}
	sum, err := run.do(ctx)
	run.line.end()
	if err == nil {
		err = sum.Err()
	} else if sum.Passes == 0 { // the rekey did not begin, so there is no result
		return run.failure(ctx, sum, err)
	}
	if *asJSON {
		return errors.Join(run.failure(ctx, sum, err), p.printJSON(sum))
	}
	p.printRekey(sum, r.Drop)
	return run.failure(ctx, sum, err)
}

// checkDeep refuses options that do not go together.
func checkDeep(f *pflag.FlagSet, deep bool) error {
	switch {
	case deep && (f.Changed("to") || f.Changed("new") || f.Changed("add") || f.Changed("drop")):
		return advice.Usagef("rekey: --deep goes with no option for key-encryption keys: the places' policies name them")
	case !deep && (f.Changed("rate") || f.Changed("jobs")):
		return advice.Usagef("rekey: --rate and --jobs are for --deep: nothing else is copied")
	}
	return nil
}

// datastoreOf finds the one datastore of all paths, given below the mount or BACKING, and adds the
// paths below BACKING to the request.
func datastoreOf(paths []string, r *rekey.Request) (root string, err error) {
	for _, path := range paths {
		in, rel, err := placeInDatastore(path)
		if err != nil {
			return "", err
		}
		if root != "" && in != root {
			return "", advice.Usagef("rekey: %s and %s are different datastores: one at a time", root, in)
		}
		root = in
		r.Paths = append(r.Paths, rel)
	}
	return root, nil
}

// placeInDatastore splits path into BACKING and the path below BACKING.
func placeInDatastore(path string) (root, rel string, err error) {
	at, _, err := behind(path)
	if err != nil {
		return "", "", err
	}
	if at, err = filepath.Abs(at); err != nil {
		return "", "", err
	}
	if at, err = filepath.EvalSymlinks(at); err != nil {
		return "", "", err
	}
	if root, err = datastoreAbove(at); err != nil {
		return "", "", err
	}
	if root == "" {
		return "", "", fmt.Errorf("%s: %w", path, datastore.ErrNone)
	}
	rel, err = filepath.Rel(root, at)
	return root, rel, err
}

// daemonTime is how long a daemon may take to describe the mount.
const daemonTime = 10 * time.Second

// daemonOf finds the daemon of the datastore at root, nil if the datastore is not mounted on this
// host. A daemon without an answer counts as none; the later attempt to take the datastore's lock
// then fails.
func daemonOf(ctx context.Context, root string) (*admin.Client, error) {
	store, err := datastore.Open(root, false)
	if err != nil {
		return nil, err
	}
	defer store.Close()
	ask, cancel := context.WithTimeout(ctx, daemonTime)
	defer cancel()
	// A copy of the datastore has the same id.
	client, _, err := daemon.Find(ask, func(m admin.Mount) bool { return m.Backing == store.Path() })
	return client, errors.Join(err, ctx.Err())
}

// rekeyHere does r in this process, with the datastore's lock held.
func rekeyHere(ctx context.Context, root string, r rekey.Request, k keyFlags, each func(rekey.Event) error) (sum rekey.Summary, err error) {
	store, err := datastore.Open(root, true)
	if err != nil {
		return rekey.Summary{}, err
	}
	defer store.Close()
	err = withKeys(ctx, k, func(source *daemon.KeySource) (err error) {
		id := store.Settings().ID.String()
		sum, err = rekey.Run(ctx, rekey.Config{
			Store: store, Keys: source.Cache, Label: daemon.LabelOf(id),
			PlaceKey: daemon.PlaceKeyBy(policy.Config{Store: store, Keys: source.Cache, Label: daemon.PlaceLabelOf(id)}),
		}, r, each)
		log, endLog := daemon.CommandLog(id)
		defer endLog()
		daemon.LogRekey(log, sum, err)
		return source.Explain(err)
	})
	return sum, err
}
