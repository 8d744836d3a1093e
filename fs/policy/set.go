package policy

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"vmcryptfs/fs/datastore"
	"vmcryptfs/keys"
	"vmcryptfs/layout"
)

// set gives a directory a policy, or says of one disk whether it is encrypted.
func (c *Config) set(ctx context.Context, r *Request) (Result, error) {
	at := string(r.Path)
	kind, err := c.kindOf(at)
	switch {
	case errors.Is(err, os.ErrNotExist), errors.Is(err, errNoDirectory):
		return Result{}, fmt.Errorf("%s: %w", at, err)
	case err != nil:
		return Result{}, err
	case kind == unix.S_IFREG:
		return c.setDisk(ctx, r)
	case kind != unix.S_IFDIR:
		return Result{}, fmt.Errorf("%w: %s is neither a directory nor a regular file", ErrRequest, at)
	}
	return c.setDirectory(ctx, at, r)
}

// setDirectory makes the directory at a path a place of the policy of r, or changes the place.
func (c *Config) setDirectory(ctx context.Context, at string, r *Request) (Result, error) {
	s := c.Store.Settings()
	p, ok := s.Policy(r.Name)
	if !ok {
		return Result{}, errPolicy(r.Name)
	}
	if own := providerOf(s, p); r.Provider != "" && r.Provider != own {
		return Result{}, fmt.Errorf("%w: the keys of policy %q are at provider %q; define a policy with --provider %s", ErrRequest, p.Name, own, r.Provider)
	}
	var old *layout.Place
	id := keys.NewFileID()
	if i := findPlace(s, at); i >= 0 {
		old = &s.Places[i]
		id = old.ID
	}
	k, err := c.keyOf(ctx, s, p, old, id, r.KEK)
	if err != nil {
		return Result{}, err
	}
	res, err := c.change(ctx, func(next *layout.Settings) ([]string, error) {
		if now, ok := next.Policy(p.Name); !ok || now != p {
			return nil, datastore.ErrChanged
		}
		return []string{at}, c.putPlace(next, at, old, layout.Place{Path: at, ID: id, Policy: p.Name, KEK: k.id})
	})
	for i := range res.Places {
		res.Places[i].Created = k.made
	}
	return res, k.unused(err)
}

// putPlace makes p the place at a path, in place of old, and keeps the globs of old.
func (c *Config) putPlace(next *layout.Settings, at string, old *layout.Place, p layout.Place) error {
	i := findPlace(next, at)
	switch {
	case old == nil && i < 0:
		if err := c.checkTag(next, at); err != nil {
			return err
		}
		next.Places = append(next.Places, p)
		return nil
	case old == nil || i < 0 || next.Places[i].ID != old.ID || next.Places[i].KEK != old.KEK:
		return datastore.ErrChanged
	}
	next.Places[i].Policy, next.Places[i].KEK = p.Policy, p.KEK
	return notRenamed(next, i)
}

// notRenamed refuses a change of the i-th place while its directory is renamed through the mount: the
// settings have both paths then, and what was changed at one would go with it.
func notRenamed(s *layout.Settings, i int) error {
	p := &s.Places[i]
	for j := range s.Places {
		if j != i && s.Places[j].ID == p.ID {
			return fmt.Errorf("%s is being renamed, from or to %s; run it again, or have vmcryptfs policy rebind take it up if the rename was cut off", p.Path, s.Places[j].Path)
		}
	}
	return nil
}

// checkTag refuses to make a new place of a directory that is a place by its tag, moved in BACKING.
// The tag of a place that is still where it was comes from a copy, and that of no place is a rest:
// both give way.
func (c *Config) checkTag(s *layout.Settings, at string) error {
	id, err := c.tagAt(at)
	if err != nil {
		return err
	}
	for i := range s.Places {
		p := &s.Places[i]
		if p.ID != id {
			continue
		}
		if there, err := c.holdsTag(p.Path, id); err != nil || there {
			return err
		}
		return fmt.Errorf("%s is the place that was at %s, by its tag; vmcryptfs policy rebind takes it up where it is now", at, p.Path)
	}
	return nil
}

// unset has a directory be no place any more: then it is as the directories around it.
func (c *Config) unset(ctx context.Context, r *Request) (Result, error) {
	at := string(r.Path)
	if err := c.servedBy(ctx, at); err != nil {
		return Result{}, err
	}
	return c.change(ctx, func(next *layout.Settings) ([]string, error) {
		i := findPlace(next, at)
		if i < 0 {
			return nil, fmt.Errorf("%s is no place, so nothing was taken away; vmcryptfs policy list shows the places", at)
		}
		if err := notRenamed(next, i); err != nil {
			return nil, err
		}
		next.Places = slices.Delete(next.Places, i, i+1)
		return nil, nil
	})
}

// servedBy refuses the end of a place by which alone files in clear are served: the next open of
// a running VM's disk would be refused.
func (c *Config) servedBy(ctx context.Context, at string) error {
	s := c.Store.Settings().Clone()
	i := findPlace(&s, at)
	if i < 0 {
		return nil
	}
	now, err := layout.NewPlaces(&s)
	if err != nil {
		return err
	}
	s.Places = slices.Delete(s.Places, i, i+1)
	then, err := layout.NewPlaces(&s)
	if err != nil {
		return err
	}
	clears := now.At(at).Tagged() || now.At(at).Place.Adopt
	if over := then.Over(at); !clears || over != nil && over.Place.Adopt {
		return nil
	}
	if c.hasCleartext(ctx, at, then, answers(now, at)) {
		return fmt.Errorf("files of %s lie in clear, or it could not be looked through, and without the place the mount would refuse to open them (EACCES); vmcryptfs policy set it to encrypt, and policy apply moves them", at)
	}
	return nil
}
