package moves

import (
	"context"
	"errors"
	"fmt"
	"path"

	"golang.org/x/sys/unix"

	"vmcryptfs/fs"
	"vmcryptfs/fs/backing"
	"vmcryptfs/fs/rekey"
	"vmcryptfs/keys"
	"vmcryptfs/layout"
)

// do does what was planned: first what needs no move, then the moves, in batches. An error means that
// the request was cut off.
func (a *apply) do(ctx context.Context, todo []*Differ) error {
	var begin []*Differ
	var found []*Differ // moves that are under way
	for _, d := range todo {
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case d.mark != (layout.FileID{}) || a.m.jobAt(d.Path) != nil:
			found = append(found, d)
		case d.kind != 0 && d.Bytes > fs.MaxConvert:
			begin = append(begin, d)
		default:
			if err := a.small(ctx, d); err != nil {
				return err
			}
		}
	}
	if err := a.goOn(ctx, found); err != nil {
		return err
	}
	for len(begin) > 0 {
		n, err := a.batch(ctx, begin[:min(len(begin), batchSize)])
		if err != nil {
			return err
		}
		begin = begin[n:]
	}
	return nil
}

// small does what needs no move: another KEK, or the conversion of a short file.
func (a *apply) small(ctx context.Context, d *Differ) error {
	err := a.m.small(ctx, d)
	switch {
	case err != nil && ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		return a.failed(d.Path, err)
	}
	if err := a.tell(func(e *Event) {
		e.Path, e.ID, e.Kind = d.Path, "", d.does()
		if d.kind != 0 {
			e.Bytes += d.Bytes
		}
	}); err != nil {
		return err
	}
	return a.done(d)
}

func (d *Differ) does() string {
	if d.kind == 0 {
		return "rekey"
	}
	return d.kind.String()
}

func (m *Manager) small(ctx context.Context, d *Differ) error {
	m.stepping.RLock()
	defer m.stepping.RUnlock()
	if why := m.haltedFor(); why != "" {
		return fmt.Errorf("moves are paused: %s", why)
	}
	if d.kind == 0 {
		return m.rekey(ctx, d)
	}
	mover, err := m.config.FS.OpenMover(d.Path)
	if err != nil {
		return err
	}
	return errors.Join(mover.Convert(ctx, d.kind), mover.Close())
}

func (m *Manager) haltedFor() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.halted) == 0 {
		return ""
	}
	return m.halted[0]
}

// rekey brings an encrypted file under the KEK that its place wants.
func (m *Manager) rekey(ctx context.Context, d *Differ) error {
	return m.config.Keys.UseForNew(ctx, d.kek, func(target *keys.KEK) error {
		w := backing.Walk{Root: m.config.Store.Fd(), Visit: func(dir int, at string, e *backing.Entry) error {
			if e.Kind != unix.S_IFREG || at != d.Path {
				return nil
			}
			_, err := rekey.File(ctx, m.config.Keys, target, dir, path.Base(at))
			return err
		}}
		return w.From(ctx, d.Path)
	})
}

// goOn goes on with moves that are under way, and waits for them.
func (a *apply) goOn(ctx context.Context, found []*Differ) error {
	var jobs []*job
	var of []*Differ
	for _, d := range found {
		if j := a.m.jobAt(d.Path); j != nil { // of another request, or of one that was cut off
			jobs, of = append(jobs, j), append(of, d)
			continue
		}
		if !a.m.isListed(d.mark) {
			if err := a.failed(d.Path, fs.ErrUnlisted); err != nil {
				return err
			}
			continue
		}
		j, _ := a.m.goOn(fs.FoundMove{ID: d.mark, Path: d.Path}, a.prepare)
		jobs, of = append(jobs, j), append(of, d)
	}
	for _, j := range jobs {
		j.set(func() {
			if j.paused {
				a.mine[j] = true
			}
			j.paused = false
		})
	}
	return a.await(ctx, jobs, of)
}

// prepare makes a job one of the request, before it starts.
func (a *apply) prepare(j *job) {
	a.mine[j] = true
	j.rate, j.slots = a.limit, a.slots
	j.told = func(copied int64) {
		v := j.show()
		_ = a.tell(func(e *Event) { // an error stops the request
			e.Path, e.ID, e.Kind = v.Path, v.ID, v.Kind
			e.Bytes += copied
		})
	}
}

// batch lists moves of some of todo, and does them. n are done, or have failed.
func (a *apply) batch(ctx context.Context, todo []*Differ) (n int, err error) {
	tasks := make([]Task, len(todo))
	for i, d := range todo {
		tasks[i] = Task{d.Path, d.kind}
	}
	jobs, err := a.m.begin(ctx, tasks)
	if err != nil {
		return 0, err
	}
	for _, j := range jobs {
		a.prepare(j)
		a.m.start(j)
	}
	return len(jobs), a.await(ctx, jobs, todo[:len(jobs)])
}

// await waits for jobs. The end of ctx pauses them, and gives those up that did not begin.
func (a *apply) await(ctx context.Context, jobs []*job, of []*Differ) error {
	for i, j := range jobs {
		select {
		case <-j.ended:
		case <-ctx.Done():
			a.abandon(jobs)
			return ctx.Err()
		}
		if errors.Is(j.err, errNotOurs) || errors.Is(j.err, fs.ErrOtherForm) { // another request was faster
			continue
		}
		if j.err != nil {
			_ = a.failed(of[i].Path, j.err)
			continue
		}
		if err := a.done(of[i]); err != nil {
			a.abandon(jobs)
			return err
		}
	}
	return nil
}

// jobAt is the job of the file at a path, or nil.
func (m *Manager) jobAt(at string) *job {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, j := range m.jobs {
		if j.at() == at {
			return j
		}
	}
	return nil
}

// abandon pauses the jobs that a request began, and which go on when it has ended.
func (a *apply) abandon(jobs []*job) {
	for _, j := range jobs {
		if a.mine[j] {
			j.set(func() { j.paused, j.drop = true, true })
		}
	}
	// The ids of those that do not begin leave the settings with the request.
	for _, j := range jobs {
		if a.mine[j] {
			j.awaitDrop()
		}
	}
}
