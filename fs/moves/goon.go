package moves

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"vmcryptfs/fs"
	"vmcryptfs/layout"
)

// GoOn goes on with every listed move whose file is found, once the settings are proven. Ids that two
// whole walks find nowhere leave the settings with the next change that the Manager makes. Safe for
// concurrent use.
func (m *Manager) GoOn(ctx context.Context) error {
	listed := m.idle()
	if len(listed) == 0 {
		return nil
	}
	first, err := m.config.find(ctx)
	lost := m.adopt(first, listed) // those that were found, also where others may have been missed
	if err != nil {
		return fmt.Errorf("look for files that move: %w", err)
	}
	if len(lost) == 0 {
		return nil
	}
	// A file that is renamed during a walk may be missed by it.
	second, err := m.config.find(ctx)
	if err != nil {
		return fmt.Errorf("look again for files that move: %w", err)
	}
	lost = m.adopt(second, lost)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.over = append(m.over, lost...)
	return nil
}

// idle are the listed ids that no job has.
func (m *Manager) idle() (ids []layout.FileID) {
	listed := m.config.Store.Settings().Moves
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, id := range listed {
		if m.jobs[id] == nil && !slices.Contains(m.over, id) {
			ids = append(ids, id)
		}
	}
	return ids
}

// adopt starts a job for each found move of ids, and returns the other ids.
func (m *Manager) adopt(found []fs.FoundMove, ids []layout.FileID) (lost []layout.FileID) {
	lost = slices.Clone(ids)
	for _, f := range found {
		if slices.Contains(ids, f.ID) {
			_, _ = m.goOn(f, nil)
			lost = slices.DeleteFunc(lost, func(id layout.FileID) bool { return id == f.ID })
		}
	}
	return lost
}

// goOn is the job of a found move, started unless it is under way. prepare is called with a job that
// begins; nil: nobody waits for the job. started is false for one that was under way.
func (m *Manager) goOn(f fs.FoundMove, prepare func(*job)) (j *job, started bool) {
	m.mu.Lock()
	if j := m.jobs[f.ID]; j != nil {
		m.mu.Unlock()
		return j, false
	}
	j = newJob(f.ID, Task{Path: f.Path})
	j.begun, j.slots = true, m.slots
	if prepare != nil {
		prepare(j)
	}
	m.jobs[f.ID] = j
	m.mu.Unlock()
	m.start(j)
	return j, true
}

// isListed reports whether the settings list an id.
func (m *Manager) isListed(id layout.FileID) bool {
	return slices.Contains(m.config.Store.Settings().Moves, id)
}

// ErrNoMark: the file is not half of a move.
var ErrNoMark = errors.New("the file does not bear the mark of a move")

// accept lists the move that marks the file at a path, and goes on with it.
func (m *Manager) accept(ctx context.Context, at string) (layout.FileID, error) {
	mark, err := m.config.markOf(ctx, at)
	if err != nil {
		return mark, fmt.Errorf("accept %s: %w", at, err)
	}
	if mark == (layout.FileID{}) {
		return mark, fmt.Errorf("accept %s: %w", at, ErrNoMark)
	}
	err = m.config.Edit(ctx, func(s *layout.Settings) error {
		switch {
		case slices.Contains(s.Moves, mark):
			return nil
		case len(s.Moves) >= layout.MaxMoves:
			return ErrTooMany
		}
		s.Moves = append(s.Moves, mark)
		return nil
	})
	if err != nil {
		return mark, fmt.Errorf("accept %s: %w", at, err)
	}
	m.config.Log.Warn("a move that was not listed is accepted", "file", at, "move", mark)
	_, _ = m.goOn(fs.FoundMove{ID: mark, Path: at}, nil)
	return mark, nil
}
