package layout

import (
	"fmt"
	"path"
)

// Places are the rules of a datastore by place: the settings' globs, the places with their policies,
// and the built-in table. Immutable. The nil *Places is the built-in table alone.
type Places struct {
	rules      *Rules
	byPath     map[string]*Area
	encrypting []*Area // those with globs that encrypt, in the order of the settings
	adopting   int     // the number of those that adopt
}

// Area is a place with its policy.
type Area struct {
	Place  Place
	Policy Policy
	globs  *Rules
}

// NewPlaces makes the rules of s, which Check accepts.
func NewPlaces(s *Settings) (*Places, error) {
	rules, err := NewRules(s.Encrypt, s.Clear)
	if err != nil {
		return nil, err
	}
	p := &Places{rules: rules, byPath: make(map[string]*Area, len(s.Places))}
	for _, place := range s.Places {
		policy, ok := s.Policy(place.Policy)
		if !ok {
			return nil, fmt.Errorf("place %q: no policy %q", place.Path, place.Policy)
		}
		globs, err := NewRules(place.Encrypt, place.Clear)
		if err != nil {
			return nil, fmt.Errorf("place %q: %w", place.Path, err)
		}
		a := &Area{place, policy, globs}
		p.byPath[place.Path] = a
		if len(place.Encrypt) > 0 {
			p.encrypting = append(p.encrypting, a)
		}
		if place.Adopt {
			p.adopting++
		}
	}
	return p, nil
}

// Any reports whether there is any place.
func (p *Places) Any() bool { return p != nil && len(p.byPath) > 0 }

// At returns the place that a directory is, by its path below BACKING ("." is BACKING), or nil.
func (p *Places) At(dir string) *Area {
	if p == nil {
		return nil
	}
	return p.byPath[dir]
}

// Over returns the place whose policy encrypts and holds for a directory by its path: the directory
// itself, or the nearest above it; nil if there is none.
func (p *Places) Over(dir string) *Area {
	if !p.Any() {
		return nil
	}
	for {
		if a := p.byPath[dir]; a != nil && a.Policy.Encrypt {
			return a
		}
		if dir == "." {
			return nil
		}
		dir = path.Dir(dir)
	}
}

// OwnKEK is the KEK of new files below the encrypting place a (nil: none) if it is not the
// datastore's. An empty provider is the datastore's.
func (a *Area) OwnKEK() (provider, id string, ok bool) {
	if a == nil || !a.Policy.Encrypt {
		return "", "", false
	}
	switch a.Policy.KEK {
	case "", KEKOfDatastore:
		return "", "", false
	case KEKOfPlace:
		return a.Policy.Provider, a.Place.KEK, true
	}
	return a.Policy.Provider, a.Policy.KEK, true
}

// Tagged reports whether the place holds only where its tag is found: it makes names clear.
func (a *Area) Tagged() bool {
	return a != nil && (!a.Policy.Encrypt || len(a.Place.Clear) > 0)
}

// Classify decides for name in a directory that is the place a (nil: none). tagged reports that the
// directory holds the tag of a. The settings' globs go before the place's, and these before the
// built-in table. A policy that does not encrypt makes clear what the rules 5, 6, 7 and 9 encrypt; core
// dumps (rule 8) hold the memory of others, too.
func (p *Places) Classify(name string, a *Area, tagged bool) Verdict {
	if p == nil {
		return Classify(name)
	}
	if a == nil {
		return p.rules.Classify(name)
	}
	base := baseName(name)
	whole := lower(element(name))
	v, ok := p.rules.settings(whole, base)
	if !ok {
		v, ok = a.globbed(whole, base, tagged)
	}
	if !ok {
		v = a.policed(p.builtin(a, base), tagged)
	}
	v.Base = base
	return v
}

// Anywhere decides for name in a directory of which nobody knows which place it is. No place makes the
// name clear, and any place whose globs encrypt the name does.
func (p *Places) Anywhere(name string) Verdict {
	v := p.Classify(name, nil, false)
	if v.Class == Encrypt || p == nil {
		return v
	}
	for _, a := range p.encrypting {
		if w := p.Classify(name, a, false); w.Class == Encrypt {
			return w
		}
	}
	return v
}

// Adopting counts the places that serve cleartext found below.
func (p *Places) Adopting() int {
	if p == nil {
		return 0
	}
	return p.adopting
}

// builtin is the built-in table's verdict, but for a rotated log whose log the settings or the place
// encrypt.
func (p *Places) builtin(a *Area, base string) Verdict {
	return a.globs.rotated(p.rules.rotated(classifyBuiltin(base), base), base)
}

// globbed matches the globs of the place.
func (a *Area) globbed(whole, base string, tagged bool) (Verdict, bool) {
	v, ok := a.globs.settings(whole, base)
	if !ok || v.Class == Clear && !tagged {
		return Verdict{}, false
	}
	v.About, v.Policy = "place "+a.Place.Path, a.Policy.Name
	return v, true
}

// policed is a verdict of the built-in table as the policy has it.
func (a *Area) policed(v Verdict, tagged bool) Verdict {
	const dumps = 8
	if a.Policy.Encrypt || !tagged || v.Class == Clear || v.Rule < 5 || v.Rule == dumps {
		return v
	}
	v.Class, v.Policy = Clear, a.Policy.Name
	return v
}
