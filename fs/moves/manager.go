package moves

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"

	"vmcryptfs/fs"
	"vmcryptfs/fs/move"
	"vmcryptfs/keys"
	"vmcryptfs/layout"
)

// Config is what a Manager works with.
type Config struct {
	FS *fs.FS
	// Edit changes the sealed settings: datastore.Store.Edit, with the mount's checks around it.
	Edit func(ctx context.Context, edit func(*layout.Settings) error) error
	// Allowed reports whether the sealed policy gives clear for a path now.
	Allowed func(path string) bool
	Log     *slog.Logger
}

// ErrTooMany: as many moves are under way as the settings list.
var ErrTooMany = fmt.Errorf("%d moves are under way, and no more are listed", layout.MaxMoves)

// Manager has the moves of one datastore. Safe for concurrent use.
type Manager struct {
	config Config

	mu     sync.Mutex
	jobs   map[layout.FileID]*job
	paused bool // every job
}

// New makes a Manager with no move under way.
func New(c Config) *Manager { return &Manager{config: c, jobs: map[layout.FileID]*job{}} }

// Task is a file to move.
type Task struct {
	Path string // below BACKING
	Kind layout.MoveKind
}

// Begin lists a move of each task, before any of them begins, and returns the ids. ErrTooMany.
func (m *Manager) Begin(ctx context.Context, tasks []Task) ([]layout.FileID, error) {
	ids := make([]layout.FileID, len(tasks))
	for i := range ids {
		ids[i] = keys.NewFileID()
	}
	err := m.config.Edit(ctx, func(s *layout.Settings) error {
		if len(s.Moves)+len(ids) > layout.MaxMoves {
			return ErrTooMany
		}
		s.Moves = append(s.Moves, ids...)
		return nil
	})
	return ids, err
}

// Forget takes ids of moves that are over out of the settings.
func (m *Manager) Forget(ctx context.Context, ids []layout.FileID) error {
	return m.config.Edit(ctx, func(s *layout.Settings) error {
		s.Moves = slices.DeleteFunc(s.Moves, func(id layout.FileID) bool { return slices.Contains(ids, id) })
		return nil
	})
}

// Run takes the move id of a task, which is listed, to its end, or goes on with one that was cut off.
// The caller calls Forget afterwards. An error says that the move did not begin or that ctx ended:
// a move that has begun goes on with the next Run.
func (m *Manager) Run(ctx context.Context, id layout.FileID, t Task, pace move.Pace) error {
	j := newJob(id, t.Path, t.Kind, pace)
	m.mu.Lock()
	if m.jobs[id] != nil {
		m.mu.Unlock()
		return fs.ErrMoving
	}
	j.paused = m.paused
	m.jobs[id] = j
	m.mu.Unlock()
	defer func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(m.jobs, id)
	}()
	return j.run(ctx, &m.config)
}

// List is the moves under way, by path.
func (m *Manager) List() []View {
	m.mu.Lock()
	defer m.mu.Unlock()
	var list []View
	for _, j := range m.jobs {
		list = append(list, j.show())
	}
	slices.SortFunc(list, func(a, b View) int { return strings.Compare(a.Path, b.Path) })
	return list
}

// ErrNoMove: no such move is under way.
var ErrNoMove = errors.New("no such move is under way")

// each does change to the jobs that which names, by id or path, or to all.
func (m *Manager) each(which []string, change func(*job)) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	var missing []error
	for _, w := range which {
		if !slices.ContainsFunc(slices.Collect(maps.Values(m.jobs)), func(j *job) bool { return j.is(w) }) {
			missing = append(missing, fmt.Errorf("%s: %w", w, ErrNoMove))
		}
	}
	for _, j := range m.jobs {
		if len(which) == 0 || slices.ContainsFunc(which, j.is) {
			change(j)
		}
	}
	return errors.Join(missing...)
}

// is reports whether w names the job.
func (j *job) is(w string) bool { return w == j.path || w == j.view.ID }

// Pause pauses the moves named by id or path, or all, also those to come.
func (m *Manager) Pause(which ...string) error { return m.hold(true, which) }

// Resume ends Pause.
func (m *Manager) Resume(which ...string) error { return m.hold(false, which) }

func (m *Manager) hold(paused bool, which []string) error {
	if len(which) == 0 {
		m.mu.Lock()
		m.paused = paused
		m.mu.Unlock()
	}
	return m.each(which, func(j *job) { j.set(func() { j.paused = paused }) })
}

// Cancel leads the moves named by id or path, or all, back.
func (m *Manager) Cancel(which ...string) error {
	return m.each(which, func(j *job) { j.set(func() { j.cancel = true }) })
}
