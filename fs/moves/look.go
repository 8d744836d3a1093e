package moves

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"vmcryptfs/fs"
	"vmcryptfs/layout"
)

// Look lists the moves of a datastore in which none is under way: each file that bears a mark, and where
// its move stands. Each such file is opened, as for a read.
func (m *Manager) Look(ctx context.Context) ([]View, error) {
	if err := m.config.Store.Verify(ctx, m.config.Keys); err != nil {
		return nil, err
	}
	found, err := m.config.find(ctx)
	if err != nil {
		return nil, fmt.Errorf("look for files that move: %w", err)
	}
	list := []View{}
	for _, f := range found {
		list = append(list, m.look(f).shown())
	}
	return list, nil
}

func (m *Manager) look(f fs.FoundMove) View {
	v := View{ID: f.ID.String(), Path: f.Path, State: Paused, Why: "the datastore is not mounted", Watermark: layout.AllInSource}
	if !m.isListed(f.ID) {
		v.State, v.Why = Refused, fs.ErrUnlisted.Error()
		return v
	}
	mover, err := m.config.FS.OpenMover(f.Path)
	if err != nil {
		v.State, v.Why = Refused, err.Error()
		return v
	}
	if p := mover.Pair(); p != nil {
		v.Kind, v.Watermark = p.Kind().String(), p.Watermark()
		v.Size, err = p.Size()
	}
	if err = errors.Join(err, mover.Close()); err != nil {
		v.State, v.Why = Refused, err.Error()
	}
	return v
}

// Finish goes on with the listed moves that which names, or with all, back if so, and waits for their
// end. For a datastore in which no move is under way.
func (m *Manager) Finish(ctx context.Context, which []string, back bool) (ended []View, err error) {
	if err := m.config.Store.Verify(ctx, m.config.Keys); err != nil {
		return nil, err
	}
	const choosing = "it is not chosen"
	m.Halt(choosing)
	if err := m.GoOn(ctx); err != nil {
		return nil, err
	}
	if none := Missing(m.List(), which); len(none) > 0 {
		return nil, fmt.Errorf("%s: %w", none[0], ErrNoMove)
	}
	jobs := m.chosen(which)
	for _, j := range jobs {
		j.set(func() { j.halted, j.cancel = "", back })
	}
	for _, j := range jobs {
		select {
		case <-j.ended:
			ended = append(ended, j.show())
		case <-ctx.Done():
			return ended, ctx.Err()
		}
		if j.err != nil && !(back && errors.Is(j.err, errTurned)) {
			err = errors.Join(err, fmt.Errorf("%s: %w", j.at(), j.err))
		}
	}
	return ended, errors.Join(err, m.flush(ctx))
}

// chosen are the jobs that which names, or all.
func (m *Manager) chosen(which []string) (jobs []*job) {
	m.each(which, func(j *job) { jobs = append(jobs, j) })
	slices.SortFunc(jobs, func(a, b *job) int { return slices.Compare(a.id[:], b.id[:]) })
	return jobs
}

// Accept is Do of DoAccept where nothing else moves: the move is listed, and stays paused.
func (m *Manager) Accept(ctx context.Context, at string) ([]View, error) {
	m.Halt("the datastore is not mounted")
	changed, err := m.Do(ctx, Change{Do: DoAccept, Which: []string{at}})
	return changed.Moves, err
}
