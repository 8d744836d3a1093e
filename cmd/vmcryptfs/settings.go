package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"vmcryptfs/advice"
	"vmcryptfs/fs/admin"
	"vmcryptfs/fs/daemon"
	"vmcryptfs/fs/datastore"
	"vmcryptfs/keys"
	"vmcryptfs/layout"
)

const settingsUsage = "show|edit BACKING, or set BACKING encrypt|clear [PATTERN…]"

// settingsFlags are how settings are changed.
type settingsFlags struct {
	keys        keyFlags
	json        bool
	yes         bool
	add, remove bool
}

// settings shows or changes a datastore's rules.
func (p *program) settings(ctx context.Context, args []string) error {
	var o settingsFlags
	f := p.flags("settings")
	f.BoolVar(&o.json, "json", false, "show: print JSON")
	f.BoolVar(&o.yes, "yes", false, "edit, set: change them also where files would be refused")
	f.BoolVar(&o.add, "add", false, "set: add the patterns to the list, in place of replacing it")
	f.BoolVar(&o.remove, "remove", false, "set: remove the patterns from the list")
	o.keys.add(f)
	args, err := p.parse(f, args, settingsUsage, 2, -1)
	if err != nil {
		return err
	}
	backing, err := datastoreAt(args[1])
	if err != nil {
		return err
	}
	switch {
	case args[0] == "show" && len(args) == 2:
		return p.showSettings(backing, o.json)
	case args[0] == "edit" && len(args) == 2:
		return p.editSettings(ctx, backing, o)
	case args[0] == "set" && len(args) > 2:
		set, err := o.setter(args[2], args[3:])
		if err != nil {
			return err
		}
		return p.changeSettings(ctx, backing, o, p.agreed(o.yes, set))
	}
	if slices.Contains([]string{"show", "edit", "set"}, args[0]) {
		return advice.New(advice.Usagef("settings: %q is not understood", strings.Join(args, " ")), "usage: vmcryptfs settings "+settingsUsage)
	}
	return subcommand("settings", args[0], settingsUsage, "show", "edit", "set")
}

// showSettings prints the settings as they stand; no key is asked for.
func (p *program) showSettings(backing string, asJSON bool) error {
	store, err := datastore.Open(backing, false)
	if err != nil {
		return err
	}
	defer store.Close()
	s := store.Settings()
	if !asJSON {
		_, err := p.stdout.Write(s.Encode())
		return err
	}
	return p.printJSON(admin.NewSettings(s))
}

// change makes the next settings of old, those of the datastore at backing, an absolute path
// with no symbolic link in it; nil: there is nothing to change.
type change func(ctx context.Context, backing string, old *layout.Settings) (*layout.Settings, error)

// changeSettings checks and seals what next makes of the settings. While the datastore is mounted
// its daemon seals them.
func (p *program) changeSettings(ctx context.Context, backing string, o settingsFlags, next change) error {
	store, err := datastore.Open(backing, true)
	if errors.Is(err, datastore.ErrBusy) {
		return p.changeMounted(ctx, backing, err, next)
	}
	if err != nil {
		return err
	}
	defer store.Close()
	return withKeys(ctx, o.keys, func(source *daemon.KeySource) error {
		return p.sealSettings(ctx, backing, store, source, next)
	})
}

// sealSettings is changeSettings of a store that is open.
func (p *program) sealSettings(ctx context.Context, backing string, store *datastore.Store, source *daemon.KeySource, next change) error {
	// Before the editor: what was changed without the key is not to be sealed, and a
	// KMS that is away is no surprise for after the work.
	if err := errors.Join(store.Trust("", "", false), store.Verify(ctx, source.Cache)); err != nil {
		return fmt.Errorf("settings of %s: %w", backing, source.Explain(err))
	}
	old := store.Settings()
	return p.makeChange(ctx, backing, store.Path(), old, next, func(ctx context.Context, wanted *layout.Settings) (uint64, error) {
		ref := keys.Ref{Provider: old.Provider, ID: old.KEK}
		if err := source.Cache.Use(ctx, ref, func(kek *keys.KEK) error { return store.Change(*wanted, kek) }); err != nil {
			return 0, err
		}
		log, endLog := daemon.CommandLog(old.ID.String())
		defer endLog()
		serial := store.Settings().Serial
		log.Info("settings changed", "backing", backing, "serial", serial)
		return serial, nil
	})
}

// makeChange asks next what becomes of the settings old, and has seal seal the settings that next
// wants, unless next wants none. seal returns the new serial. path is backing, absolute and without
// symbolic links.
func (p *program) makeChange(ctx context.Context, backing, path string, old *layout.Settings, next change, seal func(context.Context, *layout.Settings) (serial uint64, err error)) error {
	wanted, err := next(ctx, path, old)
	if err != nil {
		return err
	}
	if wanted == nil {
		fmt.Fprintln(p.stdout, "settings unchanged")
		return nil
	}
	ctx, stop := interruptible(ctx)
	defer stop()
	serial, err := seal(ctx, wanted)
	if err != nil {
		return fmt.Errorf("seal settings of %s: %w", backing, interrupted(ctx, err))
	}
	fmt.Fprintf(p.stdout, "settings of %s changed, serial %d\n", backing, serial)
	return nil
}

// setter makes the change of one list that set asks for.
func (o settingsFlags) setter(key string, patterns []string) (func(old *layout.Settings) (*layout.Settings, error), error) {
	if o.add && o.remove {
		return nil, advice.Usagef("settings set: --add or --remove, not both")
	}
	if key != "encrypt" && key != "clear" {
		return nil, advice.Usagef("settings set: key %q: encrypt and clear can be set (rekey changes provider and kek)", key)
	}
	return func(old *layout.Settings) (*layout.Settings, error) {
		next := *old
		list := &next.Encrypt
		if key == "clear" {
			list = &next.Clear
		}
		switch {
		case o.add:
			for _, pattern := range patterns {
				if !slices.Contains(*list, pattern) {
					*list = append(slices.Clip(*list), pattern)
				}
			}
		case o.remove:
			for _, pattern := range patterns {
				if !slices.Contains(*list, pattern) {
					return nil, fmt.Errorf("settings unchanged: %s has no pattern %q: vmcryptfs settings show lists them", key, pattern)
				}
			}
			*list = slices.DeleteFunc(slices.Clone(*list), func(s string) bool { return slices.Contains(patterns, s) })
		default:
			*list = patterns
		}
		if err := next.Check(); err != nil {
			return nil, advice.Usagef("settings unchanged: %w", err)
		}
		return &next, nil
	}, nil
}

// agreed is the change that set makes, once somebody agrees to what it refuses.
func (p *program) agreed(yes bool, set func(*layout.Settings) (*layout.Settings, error)) change {
	return func(ctx context.Context, backing string, old *layout.Settings) (*layout.Settings, error) {
		next, err := set(old)
		if err != nil || sameRules(old, next) {
			return nil, err
		}
		ctx, stop := interruptible(ctx)
		defer stop()
		return next, interrupted(ctx, p.agree(ctx, backing, old, next, yes))
	}
}

// sameRules tells that there is nothing to change.
func sameRules(old, next *layout.Settings) bool {
	return slices.Equal(old.Encrypt, next.Encrypt) && slices.Equal(old.Clear, next.Clear)
}
