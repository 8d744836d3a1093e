package rekey

import (
	"context"
	"errors"

	"vmcryptfs/keys"
	"vmcryptfs/layout"
)

// goal describes the lockers that every file shall have.
type goal struct {
	target *keys.KEK // its lockers replace those of the same provider; nil: none is replaced
	drop   string    // lockers of this provider are removed; empty: none
}

// edit is what a goal makes of one header.
type edit struct {
	header layout.Header // the next header, the new locker not wrapped yet
	locker int           // of the target, there or to be wrapped; -1: no target
	wrap   bool          // the locker is to be wrapped
	gone   int           // number of lockers in h and not in header
}

// nothing reports whether the lockers are as planned already.
func (c *edit) nothing() bool { return !c.wrap && c.gone == 0 }

// next works out the change of h. Lockers of other providers and of unknown wraps stay in place.
func (p goal) next(h *layout.Header) (edit, error) {
	c := edit{header: *h, locker: -1}
	free := -1 // where a new locker goes: in place of an old one, else to an empty place
	for i := range c.header.Lockers {
		l := &c.header.Lockers[i]
		switch {
		case l.Wrap == layout.WrapKMIP && p.fits(l) && c.locker < 0:
			c.locker = i
		case l.Wrap == layout.WrapKMIP && p.removes(l):
			if c.gone == 0 {
				free = i
			}
			*l = layout.Locker{}
			c.gone++
		case l.Wrap == 0 && free < 0:
			free = i
		}
	}
	if p.target == nil || c.locker >= 0 {
		return c, nil
	}
	if free < 0 {
		return edit{}, ErrLockersFull
	}
	c.locker, c.wrap = free, true
	return c, nil
}

// fits reports whether l is under the target, as far as can be told without opening l.
func (p goal) fits(l *layout.Locker) bool {
	return p.target != nil && l.Provider == p.target.Provider && l.KeyID == p.target.ID && l.KCV == p.target.CheckValue()
}

func (p goal) removes(l *layout.Locker) bool {
	return p.target != nil && l.Provider == p.target.Provider || p.drop != "" && l.Provider == p.drop
}

// open unwraps the DEK of h, the header that c changes. For a header already under the target, the
// target unwraps the DEK and so proves the locker; otherwise any KEK does. The caller wipes the
// DEK.
func (p goal) open(ctx context.Context, cache *keys.Cache, h *layout.Header, c *edit) (*keys.DEK, error) {
	if c.locker >= 0 && !c.wrap {
		return p.target.Unwrap(h, c.locker)
	}
	return cache.Unwrap(ctx, h)
}

// keepsOpening proves that a remaining locker opens the file with keys available now. The target
// proves a locker of its own in open. Without a proof the error is ErrLastLocker.
func (p goal) keepsOpening(ctx context.Context, cache *keys.Cache, h *layout.Header, c *edit) error {
	if c.gone == 0 || c.locker >= 0 {
		return nil
	}
	why := ErrLastLocker
	for i := range c.header.Lockers {
		l := &c.header.Lockers[i]
		if l.Wrap != layout.WrapKMIP {
			continue
		}
		ref := keys.Ref{Provider: l.Provider, ID: l.KeyID, Check: &l.KCV}
		err := cache.Use(ctx, ref, func(k *keys.KEK) error {
			dek, err := k.Unwrap(h, i)
			dek.Wipe()
			return err
		})
		if err == nil {
			return nil
		}
		why = errors.Join(why, err)
	}
	return why
}
