package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"vmcryptfs/fs/daemon"
	"vmcryptfs/fs/datastore"
	"vmcryptfs/fs/policy"
	"vmcryptfs/fs/rekey"
	"vmcryptfs/fs/wire"
	"vmcryptfs/keys"
	"vmcryptfs/keys/kmip"
	"vmcryptfs/layout"
	"vmcryptfs/words"
)

// keyList is the output of kms list for a datastore.
type keyList struct {
	Datastore string       `json:"datastore"`
	Backing   string       `json:"backing"`
	Keys      []listedKey  `json:"keys"`
	Damaged   []listedFile `json:"damaged"` // files whose keys cannot be told
}

// listedKey is one KEK. Dates are the KMS's.
type listedKey struct {
	Provider    string    `json:"provider"`
	Identifier  string    `json:"identifier"`
	Name        string    `json:"name,omitempty"` // at the KMS
	State       string    `json:"state"`
	Current     bool      `json:"current"`           // new files get the key, but where a policy names another
	UsedBy      []string  `json:"used_by,omitempty"` // policies and places whose new files get the key: "policy gold", "place web01"
	Problem     string    `json:"problem,omitempty"` // why the KMS gives no facts about the key
	Created     time.Time `json:"created,omitzero"`
	Activated   time.Time `json:"activated,omitzero"`
	Deactivated time.Time `json:"deactivated,omitzero"` // may be in the future
	Compromised time.Time `json:"compromised,omitzero"`
	Destroyed   time.Time `json:"destroyed,omitzero"`
	Files       int64     `json:"files"`           // with a locker under the key
	Lost        int64     `json:"lost"`            // of Files, opened by no other key
	Paths       []string  `json:"paths,omitempty"` // of Files, below BACKING, with --files
}

type listedFile struct {
	Path  string `json:"path"`
	Error string `json:"error"`
}

// kmsList shows a datastore's keys, and the files lost with each.
func (p *program) kmsList(ctx context.Context, args []string) error {
	var k keyFlags
	f := p.flags("kms list")
	files := f.Bool("files", false, "name the files under each key")
	asJSON := f.Bool("json", false, "print JSON")
	k.add(f)
	args, err := p.parse(f, args, "BACKING [--files] [--json]", 1, 1)
	if err != nil {
		return err
	}
	backing, err := datastoreAt(args[0])
	if err != nil {
		return err
	}
	store, err := datastore.Open(backing, false)
	if err != nil {
		return err
	}
	defer store.Close()
	// With --dev the development KMS may run in this process, and the keys lie in memory.
	return withKeys(ctx, k, func(source *daemon.KeySource) error {
		inventory, err := rekey.TakeInventory(ctx, store.Fd(), *files)
		if err != nil {
			return err
		}
		lister := newLister(store)
		damage := lister.take(inventory)
		unanswered := lister.ask(ctx, source)
		list := lister.list()
		if *asJSON {
			return errors.Join(damage, unanswered, p.printJSON(list))
		}
		list.print(page{to: p.stdout})
		return errors.Join(damage, unanswered)
	})
}

// lister gathers a keyList.
type lister struct {
	to    keyList
	label func(n uint64) string
	set   layout.Settings
	keys  map[wire.KeyName]*listedKey
}

func newLister(store *datastore.Store) *lister {
	s := store.Settings()
	l := &lister{
		to:    keyList{Datastore: s.ID.String(), Backing: store.Path(), Damaged: []listedFile{}},
		label: daemon.LabelOf(s.ID.String()), set: *s, keys: map[wire.KeyName]*listedKey{},
	}
	l.key(wire.KeyName{Provider: s.Provider, Identifier: s.KEK}).Current = true
	for _, named := range policy.Keys(s) {
		k := l.key(named.KeyName)
		k.UsedBy = append(k.UsedBy, named.By)
	}
	return l
}

// key is the entry of a key, made if need be.
func (l *lister) key(name wire.KeyName) *listedKey {
	k := l.keys[name]
	if k == nil {
		k = &listedKey{Provider: name.Provider, Identifier: name.Identifier, State: keys.StateUnknown.String()}
		l.keys[name] = k
	}
	return k
}

// take adds the files that each key opens. The error is of the first unreadable file.
func (l *lister) take(v *rekey.Inventory) (damage error) {
	for name, use := range v.Uses {
		k := l.key(name)
		k.Files, k.Lost, k.Paths = use.Files, use.Lost, use.Paths
	}
	for _, f := range v.Unread {
		l.to.Damaged = append(l.to.Damaged, listedFile{f.Path, f.Err.Error()})
		damage = cmp.Or(damage, fmt.Errorf("%s: %w", f.Path, f.Err))
	}
	return damage
}

// ask adds the keys at the KMS under this datastore's names, and the KMS's facts about each key.
// The error is the first one met; the other keys are still asked for.
func (l *lister) ask(ctx context.Context, source *daemon.KeySource) (failed error) {
	for _, p := range source.Cache.Providers() {
		ids, err := rekey.Located(ctx, p, l.label, l.set.Serial)
		if err != nil && p.Name() == l.set.Provider {
			failed = cmp.Or(failed, fmt.Errorf("look for keys of datastore %s: %w", l.to.Datastore, err))
		}
		for _, id := range ids {
			l.key(wire.KeyName{Provider: p.Name(), Identifier: id})
		}
	}
	for _, k := range l.keys {
		failed = cmp.Or(failed, k.describe(ctx, source))
	}
	return failed
}

// describe fills in the KMS's facts about the key.
func (k *listedKey) describe(ctx context.Context, source *daemon.KeySource) error {
	p, ok := source.Cache.Provider(k.Provider).(*kmip.Provider)
	if !ok {
		why := keys.ErrNoProvider.Error()
		if note := source.Note(); note != "" {
			why = note
		}
		k.Problem = why
		return fmt.Errorf("key %q of provider %q: %w", k.Identifier, k.Provider, keys.ErrNoProvider)
	}
	d, err := p.Describe(ctx, k.Identifier)
	if errors.Is(err, keys.ErrNotFound) {
		k.State = "missing in KMS"
		err = fmt.Errorf("%w: %d files are under it, %d of them under no other", err, k.Files, k.Lost)
	}
	if err != nil {
		k.Problem = err.Error()
		return err
	}
	k.Name, k.State = d.Name, d.State.String()
	k.Created, k.Activated, k.Deactivated = d.Initial, d.Activation, d.Deactivation
	k.Compromised, k.Destroyed = d.Compromise, d.Destroy
	return nil
}

// list gives the result, sorted by provider, the current key first, then from new to old.
func (l *lister) list() keyList {
	l.to.Keys = []listedKey{}
	for _, k := range l.keys {
		l.to.Keys = append(l.to.Keys, *k)
	}
	slices.SortFunc(l.to.Keys, func(a, b listedKey) int {
		return cmp.Or(trueFirst(a.Current, b.Current), cmp.Compare(a.Provider, b.Provider),
			b.Created.Compare(a.Created), cmp.Compare(a.Identifier, b.Identifier))
	})
	return l.to
}

// trueFirst orders true before false.
func trueFirst(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return -1
	default:
		return 1
	}
}

// print shows the list to people.
func (l *keyList) print(to page) {
	to.row("datastore", "%s in %s", l.Datastore, words.Printable(l.Backing))
	t := newTable(to, "key", "provider", "state", "created", "ends", "files", "lost without it", "name")
	for _, k := range l.Keys {
		state := k.State
		if k.Current {
			state += ", current"
		}
		if len(k.UsedBy) > 0 {
			state += ", of " + words.Printable(firstFew(k.UsedBy))
		}
		t.row(k.Identifier, k.Provider, state, words.Date(k.Created), words.Date(k.ends()), fmt.Sprint(k.Files), fmt.Sprint(k.Lost), cmp.Or(k.Name, "-"))
	}
	t.end()
	for _, k := range l.Keys {
		if k.Problem != "" {
			to.row("problem", "key %s of provider %s: %s", words.Printable(k.Identifier), words.Printable(k.Provider), words.Line(k.Problem))
		}
		for _, path := range k.Paths {
			to.row("file", "%s  %s", words.Printable(k.Identifier), words.Printable(path))
		}
	}
	for _, f := range l.Damaged {
		to.row("damaged", "%s: %s", words.Printable(f.Path), words.Line(f.Error))
	}
}

// firstFew names the first of a list, and says how many more there are.
func firstFew(names []string) string {
	if len(names) == 1 {
		return names[0]
	}
	return fmt.Sprintf("%s and %d more", names[0], len(names)-1)
}

// ends is when the key ended or will end, whatever the reason.
func (k *listedKey) ends() time.Time {
	for _, t := range []time.Time{k.Destroyed, k.Compromised, k.Deactivated} {
		if !t.IsZero() {
			return t
		}
	}
	return time.Time{}
}
