package moves

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"vmcryptfs/layout"
)

// settle ends the adoption of places at, below or above paths, where no cleartext that is to be
// encrypted is left below the place.
func (m *Manager) settle(ctx context.Context, paths []string) error {
	var done []layout.Place
	for _, p := range m.config.Store.Settings().Places {
		if !p.Adopt || !slices.ContainsFunc(paths, func(at string) bool { return within(p.Path, at) || within(at, p.Path) }) {
			continue
		}
		if m.isMoved(ctx, p.Path) {
			done = append(done, p)
		}
	}
	if len(done) == 0 {
		return ctx.Err()
	}
	err := m.config.Edit(ctx, func(s *layout.Settings) error {
		for i := range s.Places {
			p := &s.Places[i]
			if slices.ContainsFunc(done, func(q layout.Place) bool { return q.ID == p.ID && q.Path == p.Path && q.Policy == p.Policy }) {
				p.Adopt = false
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("end the adoption of %d places: %w", len(done), err)
	}
	for _, p := range done {
		m.config.Log.Info("a place adopts cleartext no more", "place", p.Path)
	}
	return nil
}

// isMoved reports whether nothing at or below a path lies in clear, or half so, that is to be
// encrypted. What cannot be judged may.
func (m *Manager) isMoved(ctx context.Context, at string) bool {
	p := plan{Config: &m.config, found: func(d *Differ) error {
		if d.kind == layout.MoveEncrypt || d.mark != (layout.FileID{}) {
			return errWalk
		}
		return nil
	}, broken: func(_ string, err error) error { return errors.Join(errWalk, err) }}
	return p.below(ctx, at) == nil
}

// within reports whether the path p is at or below top.
func within(p, top string) bool {
	return top == "." || p == top || strings.HasPrefix(p, top+"/")
}
