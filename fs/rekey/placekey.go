package rekey

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"vmcryptfs/keys"
	"vmcryptfs/layout"
)

// keyed is the place whose own key the request changes, and completes the request for the provider
// of that key; nil: there is none. The paths are clean.
func (r *Request) keyed(s *layout.Settings) (*layout.Place, error) {
	if r.whole() || !r.New && r.To == "" {
		return nil, nil
	}
	for i := range s.Places {
		p := &s.Places[i]
		policy, _ := s.Policy(p.Policy)
		if policy.KEK != layout.KEKOfPlace || !slices.Contains(r.Paths, p.Path) {
			continue
		}
		provider := cmp.Or(policy.Provider, s.Provider)
		if r.Add != "" && r.Add != provider { // a locker beside the place's
			continue
		}
		if len(r.Paths) > 1 {
			return nil, fmt.Errorf("%w: %s is a place with a key of its own, which changes for one place at a time; name it alone", ErrRequest, p.Path)
		}
		r.Add = provider
		return p, nil
	}
	return nil, nil
}

// changePlaceKey gives the place another key of its own, which is the result. Then each file gets
// the KEK of its place: there may be other places below.
func (r *run) changePlaceKey(ctx context.Context, request *Request, place *layout.Place) (keys.Ref, error) {
	if r.config.PlaceKey == nil {
		return keys.Ref{}, fmt.Errorf("%w: the key of place %s cannot be changed here", ErrRequest, place.Path)
	}
	key, created, changed, err := r.config.PlaceKey(ctx, *place, request.To)
	if err != nil {
		return keys.Ref{}, fmt.Errorf("key of place %s: %w", place.Path, err)
	}
	r.sum.Created, r.sum.Current, r.sum.Place = created, changed, place.Path
	r.aim = aim{base: r.config.Store.KEK(), byPlace: true}
	return keys.Ref{Provider: key.Provider, ID: key.Identifier}, nil
}
