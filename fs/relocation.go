package fs

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"vmcryptfs/layout"
)

// The settings name places by path, so a directory that is renamed through the mount takes its
// places along, and those below. BACKING and the settings cannot change in one: the settings are
// sealed with both paths, the directory is renamed, and the settings are sealed with the new path
// alone. A crash between leaves a path that leads nowhere, which does no harm, and which
// settlePlaces takes out.

// relocation is the rename of a directory, by paths below BACKING.
type relocation struct{ from, to string }

// of is the path that p has after r. moved is false where p lies elsewhere.
func (r relocation) of(p string) (to string, moved bool) {
	rest, below := strings.CutPrefix(p, r.from)
	if !below || rest != "" && rest[0] != '/' {
		return "", false
	}
	return r.to + rest, true
}

// Why places cannot follow their directories.
var (
	errTwoPaths = fmt.Errorf("the place has two paths already, since an earlier rename was cut off: vmcryptfs policy rebind: %w", unix.EBUSY)
	errCrossing = fmt.Errorf("places lie on both sides of the exchange, at the same paths, and no order of steps is safe in a crash: rename one after the other: %w", unix.EXDEV)
)

// moved is a place with another path.
type moved struct {
	place layout.Place // as it was
	to    string
}

// placeMove is the change of settings for the rename of a directory, or of two in an exchange. The
// methods edit settings (datastore.Store.Edit), in the order begin, and then end or undo.
type placeMove struct {
	rename  []relocation
	moved   []moved
	dropped []layout.Place // of directories that are gone: a place comes to their paths
}

// of is the path that p has after the rename.
func (m *placeMove) of(p string) (to string, moved bool) {
	for _, r := range m.rename {
		if to, moved := r.of(p); moved {
			return to, true
		}
	}
	return "", false
}

// concerns reports whether the rename moves any of places.
func (m *placeMove) concerns(places []layout.Place) bool {
	return slices.ContainsFunc(places, func(p layout.Place) bool {
		_, moved := m.of(p.Path)
		return moved
	})
}

// begin gives each place that moves its new path beside the old one.
func (m *placeMove) begin(s *layout.Settings) error {
	m.moved, m.dropped = nil, nil
	for _, p := range s.Places {
		to, moves := m.of(p.Path)
		if !moves {
			continue
		}
		if slices.ContainsFunc(s.Places, func(q layout.Place) bool { return q.ID == p.ID && q.Path != p.Path }) {
			return fmt.Errorf("place %s: %w", p.Path, errTwoPaths)
		}
		m.moved = append(m.moved, moved{p, to})
	}
	for _, x := range m.moved {
		i := indexOf(s.Places, x.to)
		if i < 0 {
			continue
		}
		if _, moves := m.of(x.to); moves {
			return fmt.Errorf("places %s and %s: %w", x.place.Path, x.to, errCrossing)
		}
		m.dropped = append(m.dropped, s.Places[i])
		s.Places = slices.Delete(s.Places, i, i+1)
	}
	for _, x := range m.moved {
		s.Places = append(s.Places, x.moved())
	}
	return validPlaces(s)
}

// end leaves each place the new path alone.
func (m *placeMove) end(s *layout.Settings) error {
	for _, x := range m.moved {
		takeOut(s, x.place.Path, x.place.ID)
	}
	return nil
}

// undo leaves each place the old path alone, after the rename has failed.
func (m *placeMove) undo(s *layout.Settings) error {
	for _, x := range m.moved {
		takeOut(s, x.to, x.place.ID)
	}
	for _, p := range m.dropped {
		if indexOf(s.Places, p.Path) < 0 {
			s.Places = append(s.Places, p)
		}
	}
	return nil
}

// moved is the place at its new path.
func (x moved) moved() layout.Place {
	p := x.place
	p.Path = x.to
	return p
}

// validPlaces is EINVAL for settings that no program would read: a directory's name may be no UTF-8.
func validPlaces(s *layout.Settings) error {
	if err := s.Check(); err != nil {
		return fmt.Errorf("the settings cannot have the new path of a place: %w", errors.Join(err, unix.EINVAL))
	}
	return nil
}

// takeOut removes a path of the place id.
func takeOut(s *layout.Settings, path string, id layout.FileID) {
	s.Places = slices.DeleteFunc(s.Places, func(p layout.Place) bool { return p.Path == path && p.ID == id })
}

// indexOf is the index of the place at a path, or -1.
func indexOf(places []layout.Place, path string) int {
	return slices.IndexFunc(places, func(p layout.Place) bool { return p.Path == path })
}
