package moves

import (
	"context"
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"vmcryptfs/fs/wire"
)

// ErrRequest is a wire.ErrRequest: the request makes no sense, and nothing was done.
var ErrRequest = fmt.Errorf("moves: %w", wire.ErrRequest)

// ErrNoMove: no such move is under way.
var ErrNoMove = errors.New("no such move is under way")

// What a Change does.
const (
	DoPause  = "pause"
	DoResume = "resume"
	DoCancel = "cancel" // leads the move back
	DoAccept = "accept" // lists the move that marks a file
)

// Change is a request about moves under way. The control socket takes a Change as JSON.
type Change struct {
	Do string `json:"do"`
	// Which are ids, and paths of files and directories below BACKING. Empty: all moves, but for
	// DoAccept, which takes one path.
	Which wire.Paths `json:"which"`
}

// Changed is the moves that a Change named, as they were afterwards.
type Changed struct {
	Moves []View `json:"moves"`
}

// Do does r. ErrNoMove names those of r that name no move; the others were changed.
func (m *Manager) Do(ctx context.Context, r Change) (Changed, error) {
	change, ok := map[string]func(*job){
		DoPause:  func(j *job) { j.paused = true },
		DoResume: func(j *job) { j.paused = false },
		DoCancel: func(j *job) { j.cancel, j.paused = true, false },
	}[r.Do]
	switch {
	case r.Do == DoAccept && len(r.Which) == 1:
		at, err := cleanPath(r.Which[0])
		if err != nil {
			return Changed{}, err
		}
		id, err := m.accept(ctx, at)
		if err != nil {
			return Changed{}, err
		}
		return m.changed([]string{id.String()}), nil
	case !ok:
		return Changed{}, fmt.Errorf("%w: %q is nothing to do with %d moves", ErrRequest, r.Do, len(r.Which))
	}
	if r.Do == DoResume { // also those that nobody goes on with
		if err := m.GoOn(ctx); err != nil {
			return Changed{}, err
		}
	}
	none := Missing(m.List(), r.Which)
	m.each(r.Which, func(j *job) { j.set(func() { change(j) }) })
	if len(none) > 0 {
		return m.changed(r.Which), fmt.Errorf("%s: %w", strings.Join(none, ", "), ErrNoMove)
	}
	return m.changed(r.Which), nil
}

// each calls do with the jobs that which names, or with all.
func (m *Manager) each(which []string, do func(*job)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, j := range m.jobs {
		v := j.show()
		if len(which) == 0 || slices.ContainsFunc(which, v.names) {
			do(j)
		}
	}
}

func (m *Manager) changed(which []string) Changed {
	return Changed{Moves: Named(m.List(), which)}
}

// cleanPath is a path below BACKING.
func cleanPath(p string) (string, error) {
	if !filepath.IsLocal(p) || strings.ContainsRune(p, 0) {
		return "", fmt.Errorf("%w: path %q is not one below BACKING", ErrRequest, p)
	}
	return path.Clean(p), nil
}
