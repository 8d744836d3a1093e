package rekey

import (
	"context"
	"errors"

	"vmcryptfs/keys"
	"vmcryptfs/layout"
)

// plan is what the lockers of every file shall be.
type plan struct {
	target *keys.KEK // the lockers of its provider give way to one under it; nil: they stay
	drop   string    // lockers of this provider go; empty: none
}

// change is what a plan makes of one header.
type change struct {
	header layout.Header // the next one, its new locker not wrapped yet
	locker int           // of the target, there or to be wrapped; -1: no target
	wrap   bool          // the locker is to be wrapped
	gone   int           // how many lockers h has that header has not
}

// nothing reports whether the lockers are as they shall be.
func (c *change) nothing() bool { return !c.wrap && c.gone == 0 }

// next works out the change of h. Lockers of other providers and of unknown wraps stay
// where they are.
func (p plan) next(h *layout.Header) (change, error) {
	c := change{header: *h, locker: -1}
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
		return change{}, ErrLockersFull
	}
	c.locker, c.wrap = free, true
	return c, nil
}

// fits reports whether l is under the target, as far as can be told without opening l.
func (p plan) fits(l *layout.Locker) bool {
	return p.target != nil && l.Provider == p.target.Provider && l.KeyID == p.target.ID && l.KCV == p.target.CheckValue()
}

func (p plan) removes(l *layout.Locker) bool {
	return p.target != nil && l.Provider == p.target.Provider || p.drop != "" && l.Provider == p.drop
}

// open unwraps the DEK of h, which c changes: with the target if it is under it already,
// which proves that locker; else with any. The caller wipes the DEK.
func (p plan) open(ctx context.Context, cache *keys.Cache, h *layout.Header, c *change) (*keys.DEK, error) {
	if c.locker >= 0 && !c.wrap {
		return p.target.Unwrap(h, c.locker)
	}
	return cache.Unwrap(ctx, h)
}

// keepsOpening makes sure that a locker which stays opens the file, with keys that are
// to be had now: ErrLastLocker. One under the target does.
func (p plan) keepsOpening(ctx context.Context, cache *keys.Cache, h *layout.Header, c *change) error {
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
