package policy

import (
	"context"
	"fmt"

	"vmcryptfs/keys"
	"vmcryptfs/layout"
)

// placeKey is the KEK of a place, for the settings to name.
type placeKey struct {
	id      string // empty: the policy gives places none of their own
	made    bool   // by the KMS, for this request
	keeps   bool   // it was the place's before
	refName string // provider and key in words, for errors
}

// unused adds to err, nil or not, that a key was made in vain.
func (k *placeKey) unused(err error) error {
	if err == nil || !k.made {
		return err
	}
	return fmt.Errorf("%w (%s was made and is not used yet)", err, k.refName)
}

// keyOf gives the KEK for the place id under the policy p of the settings s. old is the place so far,
// or nil. want is a key's identifier, KeyNew, or empty: the key that the place has, else a new
// one. The key is in the cache, fit for new files, when keyOf returns.
func (c *Config) keyOf(ctx context.Context, s *layout.Settings, p layout.Policy, old *layout.Place, id layout.FileID, want string) (k placeKey, err error) {
	if p.KEK != layout.KEKOfPlace {
		if want != "" {
			return k, fmt.Errorf("%w: policy %q gives no place a KEK of its own; --kek goes with a policy that was defined with --kek vm", ErrRequest, p.Name)
		}
		return k, nil
	}
	name := providerOf(s, p)
	if want == "" && old != nil && old.KEK != "" {
		if was, ok := s.Policy(old.Policy); ok && providerOf(s, was) == name {
			want, k.keeps = old.KEK, true
		}
	}
	var ref keys.Ref
	if want == "" || want == KeyNew {
		ref, err = c.create(ctx, name, id, s.Serial)
		k.made = err == nil
	} else {
		ref, err = c.fit(ctx, name, want)
	}
	if err != nil {
		return k, err
	}
	k.id, k.refName = ref.ID, fmt.Sprintf("key %q of provider %q", ref.ID, ref.Provider)
	return k, k.unused(c.Keys.UseForNew(ctx, ref, func(*keys.KEK) error { return nil }))
}

// provider is the provider of that name.
func (c *Config) provider(name string) (keys.Provider, error) {
	p := c.Keys.Provider(name)
	if p == nil {
		return nil, fmt.Errorf("%w: provider %q is not configured; add it to kms.toml, or name another", ErrRequest, name)
	}
	return p, nil
}

// fit gives the key id of the provider name, provided that the key is fit for new files.
func (c *Config) fit(ctx context.Context, name, id string) (keys.Ref, error) {
	p, err := c.provider(name)
	if err != nil {
		return keys.Ref{}, err
	}
	check, err := p.Ready(ctx, id)
	if err != nil {
		return keys.Ref{}, fmt.Errorf("key %q of provider %q: %w", id, name, err)
	}
	return keys.Ref{Provider: name, ID: id, Check: &check}, nil
}

// create makes the provider name create a KEK for the place id. The KEK is wiped at once: it is
// fetched as any other, so that a failure shows before the first file depends on it. Numbers begin
// after the settings' serial, which grows with every use of a key that was made.
func (c *Config) create(ctx context.Context, name string, id layout.FileID, serial uint64) (keys.Ref, error) {
	p, err := c.provider(name)
	if err != nil {
		return keys.Ref{}, err
	}
	label := func(n uint64) string { return c.Label(id, n) }
	kek, err := keys.CreateFrom(ctx, p, label, serial+1)
	if err != nil {
		return keys.Ref{}, fmt.Errorf("make a key at provider %q: %w", name, err)
	}
	defer kek.Wipe()
	check := kek.CheckValue()
	return keys.Ref{Provider: kek.Provider, ID: kek.ID, Check: &check}, nil
}
