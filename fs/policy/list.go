package policy

import (
	"context"
	"errors"
	"fmt"
	"time"

	"vmcryptfs/fs/wire"
	"vmcryptfs/keys"
	"vmcryptfs/layout"
)

// askTime bounds all questions of a List to key servers, and then the look through BACKING.
const askTime = 5 * time.Second

// Listing is what a datastore's places get.
type Listing struct {
	Serial   uint64   `json:"serial"`
	Verified bool     `json:"verified"` // the settings' seal was checked
	Policies []Policy `json:"policies"`
	Places   []Place  `json:"places"`
	Strays   []Stray  `json:"strays"`   // at most 1000
	Complete bool     `json:"complete"` // all of BACKING was looked through for Strays
}

// Policy is a policy in a Listing.
type Policy struct {
	Name     string `json:"name"`
	Encrypt  bool   `json:"encrypt"`
	BuiltIn  bool   `json:"built_in"`
	KEK      string `json:"kek,omitempty"`      // "datastore", "vm" or an identifier, of a policy that encrypts
	Provider string `json:"provider,omitempty"` // of KEK
	Places   int    `json:"places"`             // how many have it
}

// Place is a place in a Listing.
type Place struct {
	Path    string        `json:"path"`
	ID      string        `json:"id"`
	Policy  string        `json:"policy"`
	KEK     *wire.KeyName `json:"kek,omitempty"` // of new encrypted files, where it is not the datastore's
	Encrypt []string      `json:"encrypt"`       // globs
	Clear   []string      `json:"clear"`
	Adopt   bool          `json:"adopt"`
	Holds   bool          `json:"holds"`
	Why     string        `json:"why,omitempty"` // it does not hold, or its new files get no key
}

// List shows the policies and places of c as they are sealed, and looks which places hold. Keys may be
// nil: then no key server is asked. A server that does not answer in time says nothing about a
// place.
func List(ctx context.Context, c Config) (Listing, error) {
	s := c.Store.Settings()
	l := Listing{Serial: s.Serial, Verified: c.Store.Verified(), Policies: []Policy{}}
	for _, name := range Builtin() {
		p, _ := s.Policy(name)
		l.Policies = append(l.Policies, listed(s, p, true))
	}
	for _, p := range s.Policies {
		l.Policies = append(l.Policies, listed(s, p, false))
	}
	var err error
	if l.Places, err = c.places(ctx, s); err != nil {
		return Listing{}, err
	}
	walk, end := context.WithTimeout(ctx, askTime)
	defer end()
	l.Strays, l.Complete = c.strays(walk, s)
	return l, nil
}

// Places shows the places of c as they are sealed, and looks which of them hold. Keys may be nil, as for
// List. BACKING is not looked through.
func Places(ctx context.Context, c Config) ([]Place, error) { return c.places(ctx, c.Store.Settings()) }

// places shows the places of s.
func (c *Config) places(ctx context.Context, s *layout.Settings) ([]Place, error) {
	places, err := layout.NewPlaces(s)
	if err != nil {
		return nil, err
	}
	ask, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	asked, list := make(map[wire.KeyName]string), []Place{}
	for i := range s.Places {
		list = append(list, c.place(ask, s, places.At(s.Places[i].Path), asked))
	}
	return list, nil
}

func listed(s *layout.Settings, p layout.Policy, builtin bool) Policy {
	l := Policy{Name: p.Name, Encrypt: p.Encrypt, BuiltIn: builtin}
	if p.Encrypt {
		l.KEK, l.Provider = p.KEK, providerOf(s, p)
		if l.KEK == "" {
			l.KEK = layout.KEKOfDatastore
		}
	}
	for i := range s.Places {
		if s.Places[i].Policy == p.Name {
			l.Places++
		}
	}
	return l
}

// place shows one place. asked are the answers about keys so far.
func (c *Config) place(ctx context.Context, s *layout.Settings, a *layout.Area, asked map[wire.KeyName]string) Place {
	p := Place{
		Path: a.Place.Path, ID: a.Place.ID.String(), Policy: a.Policy.Name, Adopt: a.Place.Adopt,
		Encrypt: append([]string{}, a.Place.Encrypt...), Clear: append([]string{}, a.Place.Clear...),
	}
	p.Why = c.lacks(a)
	p.Holds = p.Why == ""
	_, id, own := a.OwnKEK()
	if !own {
		return p
	}
	p.KEK = &wire.KeyName{Provider: providerOf(s, a.Policy), Identifier: id}
	if _, known := asked[*p.KEK]; !known && c.Keys != nil {
		asked[*p.KEK] = c.unfit(ctx, *p.KEK)
	}
	if p.Why == "" {
		p.Why = asked[*p.KEK]
	}
	return p
}

// lacks says why a place does not hold; empty: it does.
func (c *Config) lacks(a *layout.Area) string {
	id, err := c.tagAt(a.Place.Path)
	switch {
	case errors.Is(err, errNoDirectory):
		return "its path leads to no directory"
	case err != nil:
		return err.Error()
	case !a.Tagged() || id == a.Place.ID:
		return ""
	case id == layout.FileID{}:
		return "its directory has no tag " + layout.PlaceTag + ", so names are encrypted there"
	}
	return fmt.Sprintf("its directory has the tag of another place, %s, so names are encrypted there", id)
}

// unfit says why new files get no key of this name; empty: they get one, or nobody can be asked.
func (c *Config) unfit(ctx context.Context, key wire.KeyName) string {
	p := c.Keys.Provider(key.Provider)
	if p == nil {
		return fmt.Sprintf("provider %q is not configured, so new files get no key", key.Provider)
	}
	state, err := p.State(ctx, key.Identifier)
	switch {
	case errors.Is(err, keys.ErrNotFound):
		return fmt.Sprintf("provider %q does not know its key %q, so new files get none", key.Provider, key.Identifier)
	case err != nil || state == keys.Active || state == keys.StateUnknown:
		return ""
	}
	return fmt.Sprintf("its key %q is %s, so new files get none", key.Identifier, state)
}
