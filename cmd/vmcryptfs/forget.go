package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"vmcryptfs/byname"
	"vmcryptfs/fs/admin"
	"vmcryptfs/fs/daemon"
	"vmcryptfs/fs/datastore"
	"vmcryptfs/fs/mounts"
	"vmcryptfs/layout"
	"vmcryptfs/words"
)

// The state of a datastore in this host's memory.
const (
	knownGone       = "gone"       // nothing is there, or no datastore
	knownThere      = "there"      // unchanged
	knownOther      = "other"      // another datastore lies there
	knownUnreadable = "unreadable" // nobody can tell
	knownMounted    = "mounted"
)

// knownDatastore is one in the list and in JSON.
type knownDatastore struct {
	ID       string `json:"id"`
	Backing  string `json:"backing"`
	Provider string `json:"provider"`
	KEK      string `json:"kek"`
	Serial   uint64 `json:"serial"`
	State    string `json:"state"`
	Detail   string `json:"detail,omitempty"` // of the state

	known datastore.Known
}

// forget removes datastores and their logs from this host's memory. Without arguments, forget
// lists the memory.
func (p *program) forget(_ context.Context, args []string) error {
	f := p.flags("forget")
	force := f.Bool("force", false, "forget a datastore that is still there, too: the next mount believes what it finds")
	asJSON := f.Bool("json", false, "print JSON")
	args, err := p.parse(f, args, "[BACKING|ID…] [--force] [--json]", 0, -1)
	if err != nil {
		return err
	}
	host, err := datastore.LocalHost()
	if err != nil {
		return err
	}
	all, err := listKnown(host)
	if err != nil {
		return err
	}
	if len(args) == 0 {
		return p.printKnown(all, *asJSON)
	}
	chosen, err := chooseKnown(all, args, *force)
	if err != nil {
		return err
	}
	result := forgotten{Forgotten: chosen, Removed: []string{}}
	for _, k := range chosen {
		last := !slices.ContainsFunc(all, func(o knownDatastore) bool {
			return o.ID == k.ID && !slices.Contains(chosen, o)
		})
		removed, err := k.forget(host, last)
		result.Removed = append(result.Removed, removed...)
		if err != nil {
			return fmt.Errorf("forget %s: %w", k.Backing, err)
		}
	}
	if *asJSON {
		return p.printJSON(result)
	}
	for _, k := range chosen {
		fmt.Fprintf(p.stdout, "forgot %s in %s\n", k.ID, words.Printable(k.Backing))
	}
	for _, path := range result.Removed {
		fmt.Fprintf(p.stdout, "removed %s\n", words.Printable(path))
	}
	return nil
}

// forgotten is the answer of forget.
type forgotten struct {
	Forgotten []knownDatastore `json:"forgotten"`
	Removed   []string         `json:"removed"` // files
}

// listKnown gives the datastores in host's memory, sorted by path, each with the present state.
func listKnown(host *datastore.Host) ([]knownDatastore, error) {
	known, err := host.Known()
	if err != nil {
		return nil, err
	}
	mounted, err := mounts.All()
	if err != nil {
		return nil, err
	}
	all := []knownDatastore{} // in JSON: [], not null
	for _, k := range known {
		d := knownDatastore{ID: k.ID, Backing: k.Path, Provider: k.Provider, KEK: k.KEK, Serial: k.Serial, known: k}
		d.State, d.Detail = stateOfKnown(host, k, mounted)
		all = append(all, d)
	}
	return all, nil
}

func stateOfKnown(host *datastore.Host, k datastore.Known, mounted []mounts.Mount) (state, detail string) {
	for _, m := range mounted {
		if m.Source == k.Path {
			return knownMounted, "on " + m.Mountpoint
		}
	}
	store, err := host.Open(k.Path, false)
	switch {
	case errors.Is(err, os.ErrNotExist), errors.Is(err, datastore.ErrNone), errors.Is(err, unix.ENOTDIR):
		return stateOfMissing(k)
	case err != nil:
		return knownUnreadable, err.Error()
	}
	defer store.Close()
	if id := store.Settings().ID.String(); id != k.ID {
		return knownOther, "datastore " + id + " lies there"
	}
	return knownThere, ""
}

// stateOfMissing distinguishes a missing datastore from a datastore on an unmounted file system.
func stateOfMissing(k datastore.Known) (state, detail string) {
	switch in, err := k.InPlace(); {
	case err != nil:
		return knownUnreadable, err.Error()
	case !in:
		return knownUnreadable, "its file system is not mounted there"
	}
	return knownGone, ""
}

// chooseKnown finds the datastores named by args, ids or paths. One datastore refused by mayForget
// makes chooseKnown refuse all of args.
func chooseKnown(all []knownDatastore, args []string, force bool) (chosen []knownDatastore, err error) {
	for _, arg := range args {
		found := false
		for _, k := range all {
			if !k.isNamed(arg) {
				continue
			}
			found = true
			if err := k.mayForget(force); err != nil {
				return nil, err
			}
			if !slices.Contains(chosen, k) {
				chosen = append(chosen, k)
			}
		}
		if !found {
			return nil, fmt.Errorf("this host remembers no datastore %s: vmcryptfs forget lists those that it does", arg)
		}
	}
	return chosen, nil
}

// isNamed reports whether arg is k's id or path. A missing path is compared as given.
func (k *knownDatastore) isNamed(arg string) bool {
	if id, err := layout.ParseFileID(arg); err == nil {
		return k.ID == id.String()
	}
	path, err := filepath.Abs(arg)
	if err != nil {
		return false
	}
	real, err := filepath.EvalSymlinks(path)
	return path == k.Backing || err == nil && real == k.Backing
}

// mayForget refuses a datastore in use. Without force, mayForget also refuses a datastore that may
// still exist: this host's memory reveals a rewind of the datastore, or another one in the same
// place.
func (k *knownDatastore) mayForget(force bool) error {
	switch {
	case k.State == knownMounted:
		return fmt.Errorf("%s is mounted %s: %w: unmount it first", k.Backing, k.Detail, datastore.ErrBusy)
	case force || k.State == knownGone:
		return nil
	case k.State == knownThere:
		return fmt.Errorf("%s is still there: once forgotten, the next mount believes any settings in it, older ones too; --force forgets it all the same", k.Backing)
	default:
		return fmt.Errorf("%s is not known to be gone: %s; --force forgets it all the same", k.Backing, k.Detail)
	}
}

// forget removes k from the memory. For the last datastore with k's id, forget also removes the
// log and the socket left by a killed daemon.
func (k *knownDatastore) forget(host *datastore.Host, last bool) (removed []string, err error) {
	id, err := layout.ParseFileID(k.ID)
	if err != nil { // no name for a file
		return nil, host.Forget(k.known)
	}
	run, err := datastore.RunDir()
	if err != nil {
		return nil, err
	}
	// Only the holder of the socket can mount the datastore.
	socket, err := admin.Listen(run, id.String())
	if err != nil {
		return nil, err
	}
	err = host.Forget(k.known)
	if err == nil && last {
		removed, err = removeLogs(id.String(), run)
	}
	return removed, errors.Join(err, socket.Close())
}

// isLogOf reports whether a file name belongs to a log of the datastore id, or to a log of an
// unmounted copy.
func isLogOf(name, id, run string) bool {
	of, _, found := strings.Cut(name, ".log")
	if !found || of == id {
		return found
	}
	if !datastore.IsCopyName(of, id) {
		return false
	}
	socket, err := admin.Listen(run, of) // a stale one goes with the log
	return err == nil && socket.Close() == nil
}

// removeLogs removes the logs of a datastore and its copies, and the files made from the logs by
// logrotate.
func removeLogs(id, run string) (removed []string, err error) {
	in, err := daemon.LogDir()
	if err != nil {
		return nil, err
	}
	dir, err := byname.PrivateDir(in)
	if errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	slices.Sort(names)
	for _, name := range names {
		if !isLogOf(name, id, run) {
			continue
		}
		if err := unix.Unlinkat(int(dir.Fd()), name, 0); err != nil {
			return removed, &os.PathError{Op: "remove", Path: filepath.Join(in, name), Err: err}
		}
		removed = append(removed, filepath.Join(in, name))
	}
	return removed, nil
}

// printKnown shows this host's memory.
func (p *program) printKnown(all []knownDatastore, asJSON bool) error {
	if asJSON {
		return p.printJSON(all)
	}
	if len(all) == 0 {
		fmt.Fprintln(p.stdout, "this host remembers no datastore")
		return nil
	}
	t := newTable(page{to: p.stdout}, "datastore", "state", "key", "provider", "backing")
	for _, k := range all {
		state := k.State
		if k.Detail != "" {
			state += " (" + k.Detail + ")"
		}
		t.row(k.ID, state, k.KEK, k.Provider, k.Backing)
	}
	t.end()
	return nil
}
