package policy

import (
	"vmcryptfs/fs/wire"
	"vmcryptfs/layout"
)

// NamedKey is a KEK that the settings name beside the datastore's.
type NamedKey struct {
	wire.KeyName
	By string // who has it: "policy gold", "place web01"
}

// Keys are the KEKs that policies and places of s name, in the order of the settings. A key that several
// name is there for each.
func Keys(s *layout.Settings) (named []NamedKey) {
	for _, p := range s.Policies {
		switch p.KEK {
		case "", layout.KEKOfDatastore, layout.KEKOfPlace:
		default:
			named = append(named, NamedKey{wire.KeyName{Provider: providerOf(s, p), Identifier: p.KEK}, "policy " + p.Name})
		}
	}
	for i := range s.Places {
		place := &s.Places[i]
		if p, ok := s.Policy(place.Policy); ok && place.KEK != "" {
			named = append(named, NamedKey{wire.KeyName{Provider: providerOf(s, p), Identifier: place.KEK}, "place " + place.Path})
		}
	}
	return named
}
