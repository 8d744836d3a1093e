package kmip

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"vmcryptfs/keys/kmip/wire"
)

const (
	// maxSessions bounds the sessions to one server: a host that wakes up with a
	// thousand keys to get must not look like an attack.
	maxSessions = 8
	// maxIdle bounds the idle ones among them that are kept.
	maxIdle = 4
	// idleTime is how long an idle session is kept: shorter than the minutes after
	// which firewalls forget a connection without telling.
	idleTime = 45 * time.Second
)

// A server is one server of a provider: its idle sessions and its health.
type server struct {
	address    string
	config     *Config
	identities *identities
	log        *slog.Logger
	slots      chan struct{} // one for each session in use, maxSessions

	mu     sync.Mutex // guards what follows; never held over I/O
	idle   []*session // the last one is the freshest
	expire *time.Timer
	closed bool

	health // has a lock of its own
}

func newServer(config *Config, ids *identities, address string, log *slog.Logger) *server {
	s := &server{address: address, config: config, identities: ids,
		log:   log.With("provider", config.Name, "server", address),
		slots: make(chan struct{}, maxSessions)}
	s.expire = time.AfterFunc(time.Hour, s.expireIdle)
	s.expire.Stop()
	return s
}

// acquire gives an idle session that still lives, or a fresh one.
func (s *server) acquire(ctx context.Context) (*session, error) {
	id, err := s.identities.get()
	if id == nil {
		return nil, err
	}
	if err != nil {
		s.log.Warn("KMS credentials changed and cannot be used, the old ones stay", "error", err)
	}
	for {
		idle := s.popIdle()
		if idle == nil {
			return s.config.open(ctx, s.address, id)
		}
		if idle.identity == id && time.Since(idle.idle) < idleTime && !idle.dead() {
			idle.reused = true
			return idle, nil
		}
		idle.close()
	}
}

func (s *server) popIdle() *session {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := len(s.idle)
	if n == 0 {
		return nil
	}
	last := s.idle[n-1]
	s.idle = s.idle[:n-1]
	return last
}

// release keeps a whole session for the next request, or closes it.
func (s *server) release(session *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || len(s.idle) >= maxIdle {
		session.close()
		return
	}
	session.idle = time.Now()
	s.idle = append(s.idle, session)
	s.expire.Reset(idleTime)
}

// expireIdle closes sessions that have been idle for long.
func (s *server) expireIdle() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.idle) > 0 && time.Since(s.idle[0].idle) >= idleTime {
		s.idle[0].close()
		s.idle = s.idle[1:]
	}
	if len(s.idle) > 0 {
		s.expire.Reset(idleTime)
	}
}

// errBusy says that the server was not asked since others use all the sessions that it
// may have. That tells nothing of it: they will.
var errBusy = errors.New("all sessions to it are in use")

// enter waits for its turn to have a session, as long as a server's share of the time,
// unless the server turns out not to answer those before. It ends with <-s.slots.
func (s *server) enter(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.config.serverTimeout())
	defer cancel()
	suspect := s.suspect()
	select {
	case s.slots <- struct{}{}:
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", errBusy, ctx.Err())
	}
	if !suspect && s.suspect() {
		<-s.slots
		return errBusy
	}
	return nil
}

// use gives f a session, within this server's share of the time. If an idle session
// turns out to be dead, an idempotent f is called once more with a fresh one.
func (s *server) use(ctx context.Context, idempotent bool, f func(context.Context, *session) error) error {
	if err := s.enter(ctx); err != nil {
		return err
	}
	defer func() { <-s.slots }()
	// From now on: a server is not to blame for the time in which it was not asked.
	ctx, cancel := context.WithTimeout(ctx, s.config.serverTimeout())
	defer cancel()
	for {
		session, err := s.acquire(ctx)
		if err != nil {
			return &openError{err}
		}
		err = f(ctx, session)
		if broken(err) || session.spent {
			session.close()
		} else {
			s.release(session)
		}
		// What was released another request may have by now: only a lost one can be looked at.
		if _, lost := errors.AsType[*lostError](err); !lost || !idempotent || !session.reused || ctx.Err() != nil {
			return err
		}
		s.dropIdle() // they are as old as the one that broke
	}
}

// An openError says that there was no session: the server was not asked.
type openError struct{ err error }

func (o *openError) Error() string { return o.err.Error() }
func (o *openError) Unwrap() error { return o.err }

// broken tells an error after which a session cannot be used again: any but the
// server's answer, and a key that is not what it should be.
func broken(err error) bool {
	if err == nil {
		return false
	}
	_, lost := errors.AsType[*lostError](err)
	return lost || errors.Is(err, wire.ErrMalformed)
}

func (s *server) dropIdle() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, idle := range s.idle {
		idle.close()
	}
	s.idle = nil
}

// close ends the idle sessions; those in use end with their request.
func (s *server) close() {
	s.mu.Lock()
	s.closed = true
	s.expire.Stop()
	s.mu.Unlock()
	s.dropIdle() // now no more come
}
