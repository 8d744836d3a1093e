package kmip

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"vmcryptfs/keys/kmip/wire"
)

// A server is one server of a provider: its sessions and its health.
type server struct {
	address    string
	config     *Config
	identities *identities
	log        *slog.Logger

	pool // pool and health have a lock each
	health
}

func newServer(config *Config, ids *identities, address string, log *slog.Logger) *server {
	s := &server{address: address, config: config, identities: ids,
		log: log.With("provider", config.Name, "server", address)}
	s.pool.start(config.sessions())
	return s
}

// acquire returns a living idle session, or a fresh one.
func (s *server) acquire(ctx context.Context) (*session, error) {
	id, err := s.identities.get()
	if id == nil {
		return nil, err
	}
	if err != nil {
		s.log.Warn("KMS credentials changed and cannot be used, the old ones stay", "error", err)
	}
	for {
		got, _, _ := s.popIdle()
		if got == nil {
			got, err = s.connect(ctx, func(ctx context.Context) (*session, error) {
				return s.config.open(ctx, s.address, id)
			})
		}
		if got == nil {
			return nil, err
		}
		if got.idle.IsZero() { // fresh
			return got, nil
		}
		if got.identity == id && time.Since(got.idle) < idleTime && !got.dead() {
			got.reused = true
			return got, nil
		}
		s.drop(got)
	}
}

// errBusy reports that the server was not asked, since other requests use all allowed sessions.
// The server's condition stays unknown; those requests will learn it.
var errBusy = errors.New("all sessions to it are in use")

// enter waits for a turn to have a session, unless the server turns out not to answer earlier
// requests. Each enter ends with leave.
func (s *server) enter(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.config.waitTime())
	defer cancel()
	suspect := s.suspect()
	for {
		taken, wake := s.take()
		if taken {
			break
		}
		select {
		case <-wake:
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", errBusy, ctx.Err())
		}
	}
	if !suspect && s.suspect() {
		s.leave()
		return errBusy
	}
	return nil
}

// use calls f with a session, within this server's share of the time. If an idle session turns
// out to be dead, an idempotent f is called once more with a fresh session.
func (s *server) use(ctx context.Context, idempotent bool, f func(context.Context, *session) error) error {
	if err := s.enter(ctx); err != nil {
		return err
	}
	defer s.leave()
	// The time starts here: a server is not to blame for the wait before its turn.
	ctx, cancel := context.WithTimeout(ctx, s.config.serverTimeout())
	defer cancel()
	for {
		session, err := s.acquire(ctx)
		if errors.Is(err, errBusy) {
			return err
		}
		if err != nil {
			return &openError{err}
		}
		err = f(ctx, session)
		if broken(err) || session.spent {
			s.drop(session)
		} else {
			s.release(session)
		}
		// Another request may use a released session by now: only a lost session may be
		// inspected.
		if _, lost := errors.AsType[*lostError](err); !lost || !idempotent || !session.reused || ctx.Err() != nil {
			return err
		}
		s.dropAll() // the other idle sessions are as old as the broken one
	}
}

// An openError reports that there was no session: the server was not asked.
type openError struct{ err error }

func (o *openError) Error() string { return o.err.Error() }
func (o *openError) Unwrap() error { return o.err }

// broken reports whether err makes a session unusable: any error but a server's answer and a
// wrong key.
func broken(err error) bool {
	if err == nil {
		return false
	}
	_, lost := errors.AsType[*lostError](err)
	return lost || errors.Is(err, wire.ErrMalformed)
}

// dropAll closes all idle sessions.
func (s *server) dropAll() { s.dropIdle(func(*session) bool { return true }) }
