package policy

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"slices"

	"vmcryptfs/fs/wire"
	"vmcryptfs/layout"
)

// edit makes the next settings of a copy of the current ones, with no other change under way. The
// places at the paths touched may encrypt what lay in clear by right before.
type edit func(next *layout.Settings) (touched []string, err error)

// changing is one change under way.
type changing struct {
	*Config
	was, is       layout.Settings
	before, after *layout.Places
	adopted       []string // paths of places that adopt until they are looked through
	same          []string // paths of places that stay as they are, and adopt if cleartext is found
}

// change seals what e makes of the settings, with the tags that go with them.
func (c *Config) change(ctx context.Context, e edit) (Result, error) {
	ch := &changing{Config: c}
	err := c.write(ctx, func() error {
		return c.Store.Edit(ctx, c.Keys, func(next *layout.Settings) error { return ch.make(next, e) })
	})
	if err != nil {
		return Result{}, err
	}
	if err := ch.settle(ctx); err != nil {
		return ch.result(), err
	}
	return ch.result(), nil
}

// write calls f, which may seal settings, and then has the file system take them up.
func (c *Config) write(ctx context.Context, f func() error) error {
	writing := c.Writing
	if writing == nil {
		writing = func(_ context.Context, f func() error) error { return f() }
	}
	err := writing(ctx, f)
	if c.TakeUp != nil {
		c.TakeUp() // also after an error: this host's memory may be the only thing that failed
	}
	return err
}

// make is the callback of Store.Edit: it may be called again.
func (ch *changing) make(next *layout.Settings, e edit) (err error) {
	ch.was, ch.adopted, ch.same = next.Clone(), nil, nil
	touched, err := e(next)
	if err != nil {
		return err
	}
	slices.SortStableFunc(next.Places, func(a, b layout.Place) int { return cmp.Compare(a.Path, b.Path) })
	if err := next.Check(); err != nil {
		return fmt.Errorf("%w: %w", ErrRequest, err)
	}
	if err := ch.rules(next); err != nil {
		return err
	}
	for i := range next.Places {
		if slices.Contains(touched, next.Places[i].Path) {
			ch.adopt(&next.Places[i])
		}
	}
	ch.is = next.Clone()
	return ch.tag(ch.before, ch.after, next.Places)
}

// adopt has the touched place p of the next settings adopt, until settle has looked. A place that
// stays as it was makes no file another class, so settle looks first.
func (ch *changing) adopt(p *layout.Place) {
	policy := ch.after.At(p.Path).Policy
	if !policy.Encrypt && len(p.Encrypt) == 0 && !p.Adopt {
		return
	}
	a := ch.before.At(p.Path)
	if a != nil && samePlace(a.Place, *p) && a.Policy == policy && !p.Adopt {
		ch.same = append(ch.same, p.Path)
		return
	}
	p.Adopt = true
	ch.adopted = append(ch.adopted, p.Path)
}

// rules takes up the rules before and after.
func (ch *changing) rules(next *layout.Settings) (err error) {
	if ch.before, err = layout.NewPlaces(&ch.was); err != nil {
		return err
	}
	ch.after, err = layout.NewPlaces(next)
	return err
}

// changed reports whether the settings are others than before.
func (ch *changing) changed() bool {
	is := ch.is
	is.Serial = ch.was.Serial
	return !bytes.Equal(ch.was.Encode(), is.Encode())
}

// settle takes adopt back from places where nothing lies in clear, and removes tags that no place
// needs any more. Where other settings were sealed meanwhile, adopt stays as it is.
func (ch *changing) settle(ctx context.Context) error {
	adopts := make(map[string]bool)
	for _, at := range ch.adopted {
		if !ch.hasCleartext(ctx, at, ch.after, answers(ch.after, at)) {
			adopts[at] = false
		}
	}
	for _, at := range ch.same {
		if ch.hasCleartext(ctx, at, ch.after, answers(ch.after, at)) {
			adopts[at] = true
		}
	}
	if len(adopts) == 0 && !slices.ContainsFunc(ch.was.Places, ch.isStale) {
		return nil
	}
	sealed := ch.is.Serial
	if ch.changed() {
		sealed++
	}
	err := ch.write(ctx, func() error {
		return ch.Store.Edit(ctx, ch.Keys, func(next *layout.Settings) error {
			now, err := layout.NewPlaces(next)
			if err != nil {
				return err
			}
			if next.Serial == sealed {
				ch.setAdopt(next, adopts)
			}
			return ch.untag(ch.before, now, ch.was.Places)
		})
	})
	if err != nil {
		return fmt.Errorf("the change is sealed, but a place may adopt, or hold a tag, without need: %w", err)
	}
	return nil
}

// isStale reports whether the place p of before has a tag that is needed no more.
func (ch *changing) isStale(p layout.Place) bool {
	a := ch.after.At(p.Path)
	return ch.before.At(p.Path).Tagged() && !(a.Tagged() && a.Place.ID == p.ID)
}

// setAdopt gives the places at the paths their adopt.
func (ch *changing) setAdopt(next *layout.Settings, adopts map[string]bool) {
	for i := range next.Places {
		if adopt, ok := adopts[next.Places[i].Path]; ok {
			next.Places[i].Adopt = adopt
		}
	}
	ch.is = next.Clone()
}

// result is what was changed, by the settings before and after.
func (ch *changing) result() Result {
	r := Result{Serial: ch.Store.Settings().Serial, Changed: ch.changed(), Places: []Changed{}}
	for _, p := range ch.is.Places {
		if !slices.ContainsFunc(ch.was.Places, func(o layout.Place) bool { return samePlace(o, p) }) {
			r.Places = append(r.Places, changedPlace(&ch.is, p))
		}
	}
	for _, p := range ch.was.Places {
		if !slices.ContainsFunc(ch.is.Places, func(o layout.Place) bool { return o.ID == p.ID }) {
			gone := changedPlace(&ch.was, p)
			gone.Removed = true
			r.Places = append(r.Places, gone)
		}
	}
	return r
}

func samePlace(a, b layout.Place) bool {
	return a.Path == b.Path && a.ID == b.ID && a.Policy == b.Policy && a.KEK == b.KEK && a.Adopt == b.Adopt &&
		slices.Equal(a.Encrypt, b.Encrypt) && slices.Equal(a.Clear, b.Clear)
}

func changedPlace(s *layout.Settings, p layout.Place) Changed {
	c := Changed{Path: p.Path, ID: p.ID.String(), Policy: p.Policy, Adopt: p.Adopt}
	if policy, ok := s.Policy(p.Policy); ok && p.KEK != "" {
		c.KEK = &wire.KeyName{Provider: providerOf(s, policy), Identifier: p.KEK}
	}
	return c
}

// providerOf is the provider of a policy's KEK.
func providerOf(s *layout.Settings, p layout.Policy) string { return cmp.Or(p.Provider, s.Provider) }

// errPolicy is the error of a policy that is not there.
func errPolicy(name string) error {
	return fmt.Errorf("%w: there is no policy %q; vmcryptfs policy list shows those that are there", ErrRequest, name)
}

// findPlace is the index of the place at a path, -1 if there is none.
func findPlace(s *layout.Settings, at string) int {
	return slices.IndexFunc(s.Places, func(p layout.Place) bool { return p.Path == at })
}
