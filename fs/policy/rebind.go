package policy

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"vmcryptfs/layout"
)

// rebind gives a place the path that its directory has by now, after the directory was renamed or
// restored in BACKING. Places below the old path, whose directories went along, get new paths too.
func (c *Config) rebind(ctx context.Context, r *Request) (Result, error) {
	at, from := string(r.Path), string(r.From)
	id, err := c.tagAt(at)
	if err != nil {
		return Result{}, err
	}
	return c.change(ctx, func(next *layout.Settings) ([]string, error) {
		i, err := c.lostPlace(next, at, from, id)
		if err != nil || next.Places[i].Path == at {
			return nil, err
		}
		old, moved := next.Places[i].Path, next.Places[i].ID
		if j := findPlace(next, at); j >= 0 {
			if next.Places[j].ID != moved {
				return nil, fmt.Errorf("%s is a place already, with policy %q; vmcryptfs policy set %s --remove first", at, next.Places[j].Policy, at)
			}
			// A rename through the mount was cut off, which seals both paths.
			next.Places = slices.Delete(next.Places, i, i+1)
			return nil, nil
		}
		next.Places[i].Path = at
		return nil, c.rebindBelow(next, old, at)
	})
}

// lostPlace is the index of the place that the directory at a path is, by its tag id or else by
// what is missing.
func (c *Config) lostPlace(s *layout.Settings, at, from string, id layout.FileID) (int, error) {
	var found []int
	for i := range s.Places {
		if s.Places[i].ID == id {
			found = append(found, i)
		}
	}
	if len(found) > 0 {
		return c.taggedPlace(s, at, found)
	}
	if from != "" {
		return c.placeFrom(s, at, from)
	}
	return c.untaggedPlace(s, at)
}

// taggedPlace chooses of the paths of one place, whose tag lies in the directory at a path, the one
// that is not right.
func (c *Config) taggedPlace(s *layout.Settings, at string, found []int) (int, error) {
	for _, i := range found {
		p := &s.Places[i]
		if p.Path == at {
			continue
		}
		there, err := c.holdsTag(p.Path, p.ID)
		if err != nil {
			return 0, err
		}
		if there {
			return 0, fmt.Errorf("%s is a copy of place %s, which is still there; vmcryptfs policy set makes it a place of its own", at, p.Path)
		}
		return i, nil
	}
	return found[0], nil
}

// placeFrom is the place that was at the path from, and is there no more.
func (c *Config) placeFrom(s *layout.Settings, at, from string) (int, error) {
	i := findPlace(s, from)
	if i < 0 {
		return 0, fmt.Errorf("%w: %s is no place; vmcryptfs policy list shows the places", ErrRequest, from)
	}
	return i, c.checkLost(s, i, at)
}

// checkLost refuses a place that is still there, or that only its tag would tell.
func (c *Config) checkLost(s *layout.Settings, i int, at string) error {
	p := &s.Places[i]
	gone, err := c.isGone(p.Path)
	if err != nil {
		return err
	}
	if !gone {
		return fmt.Errorf("place %s is where it was; vmcryptfs policy set makes %s a place of its own", p.Path, at)
	}
	tagged, err := isTagged(s, p.Path)
	if err == nil && tagged {
		err = fmt.Errorf("%s does not hold the tag of place %s, by which a place with names in clear is known; restore .vmcryptfs.place with it, or vmcryptfs policy set it anew", at, p.Path)
	}
	return err
}

func isTagged(s *layout.Settings, at string) (bool, error) {
	places, err := layout.NewPlaces(s)
	return err == nil && places.At(at).Tagged(), err
}

// untaggedPlace is the only place that leads nowhere and needs no tag.
func (c *Config) untaggedPlace(s *layout.Settings, at string) (int, error) {
	places, err := layout.NewPlaces(s)
	if err != nil {
		return 0, err
	}
	var found []int
	var names []string
	for i := range s.Places {
		p := &s.Places[i]
		gone, err := c.isGone(p.Path)
		if err != nil {
			return 0, err
		}
		below := slices.ContainsFunc(names, func(n string) bool { return strings.HasPrefix(p.Path, n+"/") })
		if gone && !below && !places.At(p.Path).Tagged() { // sorted by path: it goes with the one above
			found, names = append(found, i), append(names, p.Path)
		}
	}
	switch len(found) {
	case 0:
		return 0, fmt.Errorf("%s holds no tag of a place, and no place is missing that needs none; vmcryptfs policy list shows which places do not hold", at)
	case 1:
		return found[0], nil
	}
	return 0, fmt.Errorf("several places lead nowhere, and %s may be each of them: %s; name the one by --from", at, firstOf(names))
}

// rebindBelow gives the places below the old path of a place new ones, where they lead nowhere.
func (c *Config) rebindBelow(next *layout.Settings, old, at string) error {
	for i := range next.Places {
		p := &next.Places[i]
		rest, below := strings.CutPrefix(p.Path, old+"/")
		if !below {
			continue
		}
		gone, err := c.isGone(p.Path)
		if err != nil {
			return err
		}
		if to := at + "/" + rest; gone && findPlace(next, to) < 0 {
			p.Path = to
		}
	}
	return nil
}
