package moves

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"vmcryptfs/fs"
	"vmcryptfs/fs/datastore"
	"vmcryptfs/keys"
	"vmcryptfs/layout"
)

const (
	// outBatch is how many ids of moves that are over leave the settings together, while others go on.
	outBatch = 32
	// outTime bounds how long ids take to leave the settings.
	outTime = 10 * time.Second
)

// Config is what a Manager works with. The caller still owns all of the fields.
type Config struct {
	FS    *fs.FS
	Store *datastore.Store // of FS
	Keys  *keys.Cache
	// Edit changes the sealed settings, and has FS take them up: datastore.Store.Edit, with the
	// mount's checks around it.
	Edit func(ctx context.Context, edit func(*layout.Settings) error) error
	Log  *slog.Logger
}

// ErrTooMany: as many moves are under way as the settings list.
var ErrTooMany = fmt.Errorf("%d moves are under way, and no more are listed: let some end, or cancel some (vmcryptfs moves list)", layout.MaxMoves)

// Manager has the moves of one datastore. Safe for concurrent use. Each move has a goroutine, which
// New's caller ends with Close; a request for moves waits for theirs.
type Manager struct {
	config  Config
	ctx     context.Context
	end     context.CancelFunc
	running sync.WaitGroup // goroutines of jobs
	slots   chan struct{}  // for moves that nobody waits for

	stepping sync.RWMutex // held shared by a job that has its file open; Halt waits for all
	out      sync.Mutex   // held over an Edit that takes ids out; before mu

	mu     sync.Mutex // guards what is below; before job.mu; never held over I/O
	jobs   map[layout.FileID]*job
	over   []layout.FileID // listed ids of moves that are over
	halted []string        // reasons why all are paused
}

// unattended is how many moves that nobody waits for step at once.
const unattended = 2

// New makes a Manager with no move under way.
func New(c Config) *Manager {
	ctx, end := context.WithCancel(context.Background())
	return &Manager{config: c, ctx: ctx, end: end, slots: make(chan struct{}, unattended), jobs: map[layout.FileID]*job{}}
}

// Close ends every move at its next step, and waits; idempotent. The ids of moves that have not ended
// stay listed.
func (m *Manager) Close() error {
	m.end()
	m.running.Wait()
	ctx, done := context.WithTimeout(context.Background(), outTime)
	defer done()
	return m.flush(ctx)
}

// Task is a file to move.
type Task struct {
	Path string // below BACKING
	Kind layout.MoveKind
}

// begin lists a move of each task by one change of the settings, before any of them begins. It lists as
// many as there is room for, at least one; else ErrTooMany. The caller starts the jobs.
func (m *Manager) begin(ctx context.Context, tasks []Task) (jobs []*job, err error) {
	for _, t := range tasks {
		jobs = append(jobs, newJob(keys.NewFileID(), t))
	}
	m.mu.Lock()
	for _, j := range jobs { // before the ids are listed: GoOn takes no listed id for lost that has a job
		m.jobs[j.id] = j
	}
	m.mu.Unlock()
	room := 0
	err = m.config.Edit(ctx, func(s *layout.Settings) error {
		room = min(layout.MaxMoves-len(s.Moves), len(jobs))
		if room <= 0 {
			return ErrTooMany
		}
		for _, j := range jobs[:room] {
			s.Moves = append(s.Moves, j.id)
		}
		return nil
	})
	if err != nil {
		room = 0
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, j := range jobs[room:] {
		delete(m.jobs, j.id)
	}
	return jobs[:room], err
}

// start runs a job of m.jobs.
func (m *Manager) start(j *job) {
	m.mu.Lock()
	if len(m.halted) > 0 {
		why := m.halted[0]
		j.set(func() { j.halted = why })
	}
	m.mu.Unlock()
	m.running.Go(func() {
		j.err = j.run(m.ctx, m)
		m.ends(j)
		close(j.ended)
	})
}

// ends takes note of a job whose goroutine ends.
func (m *Manager) ends(j *job) {
	at := j.at()
	if cut := j.err != nil && m.ctx.Err() != nil && !j.isFinal(j.err); cut && j.isListed() { // it goes on at the next mount
		m.mu.Lock()
		delete(m.jobs, j.id)
		m.mu.Unlock()
		return
	}
	if j.err == nil {
		m.config.Log.Info("a file was moved", "file", at, "move", j.id, "kind", j.show().Kind)
	} else {
		m.config.Log.Info("a move is over", "file", at, "move", j.id, "why", j.err)
	}
	m.mu.Lock()
	delete(m.jobs, j.id)
	m.over = append(m.over, j.id)
	due := len(m.over) >= outBatch || len(m.jobs) == 0
	m.mu.Unlock()
	if !due || m.ctx.Err() != nil {
		return
	}
	ctx, done := context.WithTimeout(m.ctx, outTime)
	defer done()
	if err := m.flush(ctx); err != nil {
		m.config.Log.Warn("ids of moves that are over stay listed for now", "error", err)
	}
}

// flush takes the ids of moves that are over out of the settings.
func (m *Manager) flush(ctx context.Context) error {
	m.out.Lock()
	defer m.out.Unlock()
	m.mu.Lock()
	ids := slices.Clone(m.over)
	m.mu.Unlock()
	if len(ids) == 0 {
		return nil
	}
	err := m.config.Edit(ctx, func(s *layout.Settings) error {
		s.Moves = slices.DeleteFunc(s.Moves, func(id layout.FileID) bool { return slices.Contains(ids, id) })
		return nil
	})
	if err != nil {
		return fmt.Errorf("take moves that are over out of the settings: %w", err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.over = slices.DeleteFunc(m.over, func(id layout.FileID) bool { return slices.Contains(ids, id) })
	return nil
}

// List is the moves under way, by path.
func (m *Manager) List() []View {
	m.mu.Lock()
	defer m.mu.Unlock()
	list := []View{}
	for _, j := range m.jobs {
		list = append(list, j.show())
	}
	slices.SortFunc(list, func(a, b View) int { return strings.Compare(a.Path, b.Path) })
	return list
}

// Halt pauses every move, also those to come, for a reason, and waits for the steps under way.
func (m *Manager) Halt(why string) {
	m.mu.Lock()
	if !slices.Contains(m.halted, why) {
		m.halted = append(m.halted, why)
	}
	m.setHalted()
	m.mu.Unlock()
	m.stepping.Lock() // every job that has its file open has let it go
	defer m.stepping.Unlock()
}

// Release ends a Halt for the same reason.
func (m *Manager) Release(why string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.halted = slices.DeleteFunc(m.halted, func(w string) bool { return w == why })
	m.setHalted()
}

// setHalted tells each job. mu is held.
func (m *Manager) setHalted() {
	why := ""
	if len(m.halted) > 0 {
		why = m.halted[0]
	}
	for _, j := range m.jobs {
		j.set(func() { j.halted = why })
	}
}
