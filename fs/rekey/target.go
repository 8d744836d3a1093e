package rekey

import (
	"context"
	"errors"
	"fmt"

	"vmcryptfs/keys"
	"vmcryptfs/layout"
)

// A finder is a provider that finds keys by their names: empty if there is none.
type finder interface {
	Find(ctx context.Context, name string) (id string, err error)
}

// maxNames bounds how many of a datastore's older key names are looked for at a KMS.
const maxNames = 64

// mostTaken bounds how many names may be taken: one that was made and not used is, and no
// administrator tries so often.
const mostTaken = 1000

// Located gives the identifiers of keys that p has under this datastore's names, the
// newest name first. A key is named after the serial of the settings that it was made
// for, or the next free number; so names end after the one that follows serial, and the
// oldest of more than 64 are left out. Nil where p cannot search.
func Located(ctx context.Context, p keys.Provider, label func(n uint64) string, serial uint64) (ids []string, err error) {
	find, ok := p.(finder)
	if !ok {
		return nil, nil
	}
	last, err := firstFree(ctx, find, label, serial+1)
	if err != nil {
		return nil, err
	}
	for n := last - 1; n > 0 && last-n <= maxNames; n-- {
		id, err := find.Find(ctx, label(n))
		if err != nil {
			return ids, err
		}
		if id != "" {
			ids = append(ids, id)
		}
	}
	return ids, nil
}

// firstFree is the first number from n that names no key.
func firstFree(ctx context.Context, find finder, label func(n uint64) string, n uint64) (uint64, error) {
	for end := n + mostTaken; n < end; n++ {
		id, err := find.Find(ctx, label(n))
		if err != nil || id == "" {
			return n, err
		}
	}
	return 0, fmt.Errorf("%w: it has keys of %d names in a row, as far as %s: does it look at the name?", keys.ErrRefused, mostTaken, label(n-1))
}

// target is the KEK that a request is for, made if need be, with its check value if that
// is known. created tells that it was made now.
func (c *Config) target(ctx context.Context, r *Request, s *layout.Settings) (ref keys.Ref, created bool, err error) {
	p := c.Keys.Provider(r.Add)
	if p == nil {
		return keys.Ref{}, false, fmt.Errorf("%w: provider %q is not configured", ErrRequest, r.Add)
	}
	switch {
	case r.To != "":
		return keys.Ref{Provider: r.Add, ID: r.To}, false, activeNow(ctx, p, r.To)
	case r.New:
		ref, err = c.create(ctx, p, s.Serial)
		return ref, err == nil, err
	case r.Add == s.Provider:
		return c.Store.KEK(), false, nil
	}
	ref, err = c.newest(ctx, p, s.Serial)
	if err != nil || ref.ID != "" {
		return ref, false, err
	}
	ref, err = c.create(ctx, p, s.Serial)
	return ref, err == nil, err
}

// create has p make a KEK for the datastore's next settings. It is not kept: that it can
// be fetched like any other is to be seen before the first file depends on it.
func (c *Config) create(ctx context.Context, p keys.Provider, serial uint64) (keys.Ref, error) {
	n := serial + 1
	if find, ok := p.(finder); ok {
		var err error
		if n, err = firstFree(ctx, find, c.Label, n); err != nil {
			return keys.Ref{}, err
		}
	}
	kek, err := p.Create(ctx, c.Label(n))
	if err != nil {
		return keys.Ref{}, err
	}
	defer kek.Wipe()
	check := kek.CheckValue()
	return keys.Ref{Provider: kek.Provider, ID: kek.ID, Check: &check}, nil
}

// activeNow asks the KMS, since what a cache knows of a key may be minutes old:
// keys.ErrKeyState.
func activeNow(ctx context.Context, p keys.Provider, id string) error {
	state, err := p.State(ctx, id)
	if err == nil && state != keys.Active {
		err = fmt.Errorf("key %q of provider %q is %s: %w", id, p.Name(), state, keys.ErrKeyState)
	}
	return err
}

// newest is the newest Active KEK that p has of this datastore, zero if there is none.
func (c *Config) newest(ctx context.Context, p keys.Provider, serial uint64) (keys.Ref, error) {
	ids, err := Located(ctx, p, c.Label, serial)
	if err != nil {
		return keys.Ref{}, err
	}
	for _, id := range ids {
		state, err := p.State(ctx, id)
		if err != nil && !errors.Is(err, keys.ErrNotFound) {
			return keys.Ref{}, err
		}
		if err == nil && state == keys.Active {
			return keys.Ref{Provider: p.Name(), ID: id}, nil
		}
	}
	return keys.Ref{}, nil
}

// becomesCurrent tells if target shall be the datastore's current KEK and is not yet.
func (r *Request) becomesCurrent(s *layout.Settings, target *keys.KEK) bool {
	replaces := target.Provider == s.Provider || r.Drop == s.Provider
	same := target.Provider == s.Provider && target.ID == s.KEK
	return r.whole() && replaces && !same
}

// makeCurrent seals the settings under target and the KEK before it: from then on new
// files are made under target.
func (c *Config) makeCurrent(ctx context.Context, s *layout.Settings, target *keys.KEK) error {
	next := *s
	next.Provider, next.KEK = target.Provider, target.ID
	return c.Keys.Use(ctx, c.Store.KEK(), func(previous *keys.KEK) error {
		return c.Store.ChangeKEK(next, target, previous)
	})
}
