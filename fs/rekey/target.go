package rekey

import (
	"context"
	"errors"
	"fmt"

	"vmcryptfs/keys"
	"vmcryptfs/layout"
)

// A finder is a provider that can search for keys by name.
type finder interface {
	Find(ctx context.Context, name string) (ids []string, err error)
}

// maxNames bounds how many of a datastore's older key names are looked for at a KMS.
const maxNames = 64

// mostTaken bounds the number of taken names. A key made in vain takes a name, and no
// administrator tries a thousand times.
const mostTaken = 1000

// Located gives the identifiers of the keys at p under this datastore's names, the newest name
// first. A key is named after the serial of its settings, or after the next number that is free at
// p; so the search ends soon after serial. The oldest of more than 64 names are left out. The
// result is nil for a provider without a search.
func Located(ctx context.Context, p keys.Provider, label func(n uint64) string, serial uint64) (ids []string, err error) {
	find, ok := p.(finder)
	if !ok {
		return nil, nil
	}
	last, err := lastTaken(ctx, find, label, serial)
	if err != nil {
		return nil, err
	}
	for n := last; n > 0 && last-n < maxNames; n-- {
		found, err := find.Find(ctx, label(n))
		if err != nil {
			return ids, err
		}
		ids = append(ids, found...)
	}
	return ids, nil
}

// lastTaken is the last number that names a key, or serial where no later number does. Numbers may
// be skipped: the KMS did not accept such a name (keys.CreateFrom).
func lastTaken(ctx context.Context, find finder, label func(n uint64) string, serial uint64) (uint64, error) {
	last := serial
	for n := serial + 1; n <= last+keys.MostTaken; n++ {
		if n > serial+mostTaken {
			return 0, fmt.Errorf("%w: it has keys of %d names, as far as %s: does it look at the name?", keys.ErrRefused, mostTaken, label(n))
		}
		ids, err := find.Find(ctx, label(n))
		if err != nil {
			return 0, err
		}
		if len(ids) > 0 {
			last = n
		}
	}
	return last, nil
}

// target gives the KEK for a request, made where needed. ref has the check value if the value is
// known. created reports whether target made the KEK.
func (c *Config) target(ctx context.Context, r *Request, s *layout.Settings) (ref keys.Ref, created bool, err error) {
	p := c.Keys.Provider(r.Add)
	if p == nil {
		return keys.Ref{}, false, fmt.Errorf("%w: provider %q is not configured", ErrRequest, r.Add)
	}
	switch {
	case r.New:
		ref, err = c.create(ctx, p, s.Serial)
		return ref, err == nil, err
	case r.Add == s.Provider && (r.To == "" || r.To == s.KEK): // with its check value, by which a server with another key is skipped
		return c.Store.KEK(), false, nil
	case r.To != "":
		ref, err = fit(ctx, p, r.To)
		return ref, false, err
	}
	ref, err = c.newest(ctx, p, s.Serial)
	if err != nil || ref.ID != "" {
		return ref, false, err
	}
	ref, err = c.create(ctx, p, s.Serial)
	return ref, err == nil, err
}

// create makes p create a KEK for the datastore's next settings. The KEK is wiped at once: the
// caller fetches the KEK as any other, so that a failure shows before the first file depends on
// the KEK.
func (c *Config) create(ctx context.Context, p keys.Provider, serial uint64) (keys.Ref, error) {
	last := serial
	if find, ok := p.(finder); ok {
		var err error
		if last, err = lastTaken(ctx, find, c.Label, serial); err != nil {
			return keys.Ref{}, err
		}
	}
	kek, err := keys.CreateFrom(ctx, p, c.Label, last+1)
	if err != nil {
		return keys.Ref{}, err
	}
	defer kek.Wipe()
	check := kek.CheckValue()
	return keys.Ref{Provider: kek.Provider, ID: kek.ID, Check: &check}, nil
}

// newest is the newest KEK of this datastore at p that is fit for new files, or a zero Ref.
func (c *Config) newest(ctx context.Context, p keys.Provider, serial uint64) (keys.Ref, error) {
	ids, err := Located(ctx, p, c.Label, serial)
	if err != nil {
		return keys.Ref{}, err
	}
	for _, id := range ids {
		ref, err := fit(ctx, p, id)
		switch {
		case err == nil:
			return ref, nil
		case !errors.Is(err, keys.ErrNotFound) && !errors.Is(err, keys.ErrKeyState) && !errors.Is(err, keys.ErrKeyLength):
			return keys.Ref{}, err
		}
	}
	return keys.Ref{}, nil
}

// fit gives the key id of p, provided that the key is fit for new files.
func fit(ctx context.Context, p keys.Provider, id string) (keys.Ref, error) {
	check, err := p.Ready(ctx, id)
	return keys.Ref{Provider: p.Name(), ID: id, Check: &check}, err
}

// becomesCurrent reports whether target shall be the datastore's current KEK and is not yet.
func (r *Request) becomesCurrent(s *layout.Settings, target keys.Ref) bool {
	replaces := target.Provider == s.Provider || r.Drop == s.Provider
	same := target.Provider == s.Provider && target.ID == s.KEK
	return r.whole() && replaces && !same
}

// makeCurrent seals the settings under target and under the KEK before. From then on new files are
// made under target. The rules are those of now, perhaps changed since the run began. A change of
// the rules at the same moment is datastore.ErrChanged.
func (c *Config) makeCurrent(ctx context.Context, target *keys.KEK) error {
	return c.Keys.Use(ctx, c.Store.KEK(), func(previous *keys.KEK) error {
		next := *c.Store.Settings()
		next.Provider, next.KEK = target.Provider, target.ID
		return c.Store.ChangeKEK(next, target, previous)
	})
}
