package policy

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"vmcryptfs/fs/datastore"
	"vmcryptfs/keys"
	"vmcryptfs/layout"
)

// mostNamed is how many places an error names.
const mostNamed = 5

// define adds a policy, or gives one another meaning: then its places get what they need by it.
func (c *Config) define(ctx context.Context, r *Request) (Result, error) {
	s := c.Store.Settings()
	p, err := c.defined(ctx, s, r)
	if err != nil {
		return Result{}, err
	}
	was, had := s.Policy(p.Name)
	made, err := c.placeKeys(ctx, s, p)
	if err != nil {
		return Result{}, err
	}
	res, err := c.change(ctx, func(next *layout.Settings) ([]string, error) {
		if now, has := next.Policy(p.Name); has != had || now != was {
			return nil, datastore.ErrChanged
		}
		if i := slices.IndexFunc(next.Policies, func(o layout.Policy) bool { return o.Name == p.Name }); i >= 0 {
			next.Policies[i] = p
		} else {
			next.Policies = append(next.Policies, p)
		}
		return giveKeys(next, p, was, made)
	})
	for i := range res.Places {
		k, ok := made[res.Places[i].ID]
		res.Places[i].Created = ok && k.made
	}
	return res, madeInVain(err, made)
}

// defined is the policy of r, whose key is fit for new files.
func (c *Config) defined(ctx context.Context, s *layout.Settings, r *Request) (layout.Policy, error) {
	p := layout.Policy{Name: r.Name, Encrypt: r.Encrypt, Provider: r.Provider, KEK: r.KEK}
	if p.KEK == layout.KEKOfDatastore {
		p.KEK = ""
	}
	if slices.Contains(Builtin(), p.Name) {
		return p, fmt.Errorf("%w: policy %q is built in; choose another name", ErrRequest, p.Name)
	}
	if !p.Encrypt || p.KEK == "" {
		return p, nil // what does not go together is found by the check of all settings
	}
	// By its name also where it is the datastore's: a rekey may give the datastore another provider,
	// which has no key of these identifiers.
	p.Provider = providerOf(s, p)
	if p.KEK == layout.KEKOfPlace {
		_, err := c.provider(p.Provider)
		return p, err
	}
	ref, err := c.fit(ctx, p.Provider, p.KEK)
	if err == nil {
		err = c.Keys.UseForNew(ctx, ref, func(*keys.KEK) error { return nil })
	}
	return p, err
}

// placeKeys gives each place of the policy p, by its id, its key under p as it is to be.
func (c *Config) placeKeys(ctx context.Context, s *layout.Settings, p layout.Policy) (map[string]placeKey, error) {
	made := make(map[string]placeKey)
	for i := range s.Places {
		place := &s.Places[i]
		id := place.ID.String()
		if _, has := made[id]; has || place.Policy != p.Name { // a rename has two paths of one place
			continue
		}
		k, err := c.keyOf(ctx, s, p, place, place.ID, "")
		if k.made {
			made[id] = k
		}
		if err != nil {
			return nil, madeInVain(fmt.Errorf("place %s: %w", place.Path, err), made)
		}
		made[id] = k
	}
	return made, nil
}

// giveKeys gives the places of p their keys, and returns the paths of places whose files may come to
// be encrypted.
func giveKeys(next *layout.Settings, p, was layout.Policy, made map[string]placeKey) (touched []string, err error) {
	for i := range next.Places {
		place := &next.Places[i]
		if place.Policy != p.Name {
			continue
		}
		k, ok := made[place.ID.String()]
		if !ok { // the place came meanwhile
			return nil, datastore.ErrChanged
		}
		place.KEK = k.id
		if p.Encrypt && !was.Encrypt {
			touched = append(touched, place.Path)
		}
	}
	return touched, nil
}

// madeInVain adds to err, nil or not, which keys were made and are not used.
func madeInVain(err error, made map[string]placeKey) error {
	var names []string
	for _, k := range made {
		if k.made {
			names = append(names, k.refName)
		}
	}
	if err == nil || len(names) == 0 {
		return err
	}
	slices.Sort(names)
	return fmt.Errorf("%w (made, and not used yet: %s)", err, firstOf(names))
}

// remove takes a policy away that no place has.
func (c *Config) remove(ctx context.Context, r *Request) (Result, error) {
	if slices.Contains(Builtin(), r.Name) {
		return Result{}, fmt.Errorf("%w: policy %q is built in, and stays", ErrRequest, r.Name)
	}
	return c.change(ctx, func(next *layout.Settings) ([]string, error) {
		if _, ok := next.Policy(r.Name); !ok {
			return nil, errPolicy(r.Name)
		}
		var users []string
		for _, p := range next.Places {
			if p.Policy == r.Name {
				users = append(users, p.Path)
			}
		}
		if len(users) > 0 {
			return nil, fmt.Errorf("policy %q stays: it is the policy of %s; give them another by vmcryptfs policy set", r.Name, firstOf(users))
		}
		next.Policies = slices.DeleteFunc(next.Policies, func(p layout.Policy) bool { return p.Name == r.Name })
		return nil, nil
	})
}

// firstOf names a few, and says how many more there are.
func firstOf(names []string) string {
	text := strings.Join(names[:min(len(names), mostNamed)], ", ")
	if n := len(names) - mostNamed; n > 0 {
		text += fmt.Sprintf(" and %d more", n)
	}
	return text
}

// Builtin are the names of the policies of every datastore.
func Builtin() (names []string) {
	var none layout.Settings
	for _, name := range []string{"encrypt", "clear"} {
		if _, ok := none.Policy(name); ok {
			names = append(names, name)
		}
	}
	return names
}
