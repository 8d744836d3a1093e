package kmip

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"

	"vmcryptfs/keys"
	"vmcryptfs/keys/kmip/wire"
)

// A cluster is the servers of a provider, tried by health.
type cluster struct {
	config  Config
	ids     *identities
	log     *slog.Logger
	servers []*server // in the order of the configuration; immutable

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	probes sync.WaitGroup // the probes in the background

	mu     sync.Mutex // guards closed; no probe starts after closed is set
	closed bool
}

func newCluster(config Config, ids *identities, log *slog.Logger) *cluster {
	c := &cluster{config: config, ids: ids, log: log}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	for _, address := range config.Servers {
		c.servers = append(c.servers, newServer(&c.config, ids, address, log))
	}
	return c
}

// order returns the order in which servers are tried. Healthy servers come first: the one that
// failed longest ago before the others, and one that did not give this key after the others.
// Suspects follow. So a server that fails now and then does not return to the front by itself.
func (c *cluster) order(key string) (healthy, suspects []*server) {
	for _, s := range c.servers {
		if s.suspect() {
			suspects = append(suspects, s)
		} else {
			healthy = append(healthy, s)
		}
	}
	slices.SortStableFunc(healthy, func(a, b *server) int {
		return cmp.Or(a.lastDenied(key).Compare(b.lastDenied(key)), a.lastFailed().Compare(b.lastFailed()))
	})
	return healthy, suspects
}

// An attempt is one thing to be done on one server.
type attempt struct {
	operation  string // for errors: "Get"
	key        string // identifier of the key concerned; empty: none yet
	idempotent bool
	do         func(context.Context, *session) error
}

// try makes an attempt on one server after the other, until a server does the operation or gives
// a final answer: the key is destroyed, or the new key's name is taken. Any other refusal, and
// any wrong key, counts against the server. The error is the best of all servers' errors (see
// precedence). When no server is known to be well, try fails at once; probes in the background
// notice the return of a server.
func (c *cluster) try(ctx context.Context, a attempt) error { return c.tryFrom(ctx, "", a) }

// tryFrom is try that begins with the server at the address first, even a suspect one.
func (c *cluster) tryFrom(ctx context.Context, first string, a attempt) error {
	ctx, cancel := context.WithTimeout(ctx, c.config.timeout())
	defer cancel()
	healthy, suspects := c.order(a.key)
	if len(healthy) == 0 && first == "" {
		return c.allSuspect(a.operation)
	}
	servers := slices.Concat(healthy, suspects)
	if i := slices.IndexFunc(servers, func(s *server) bool { return s.address == first }); i > 0 {
		servers = slices.Concat(servers[i:i+1], servers[:i], servers[i+1:])
	}
	var failures []*Error
	for _, s := range servers {
		if s.suspect() && join(failures).missing() {
			break // every reachable server says so
		}
		err := c.on(ctx, s, a)
		if err == nil {
			c.tell(a, failures)
			return nil
		}
		if err.final || err.lost && !a.idempotent {
			return err
		}
		failures = append(failures, err)
		if ctx.Err() != nil {
			break
		}
	}
	return join(failures)
}

// tell logs which servers did not give a key given by another server: each server once, until the
// server gives the key. A server without the key may be a lagging replica, and is not logged.
func (c *cluster) tell(a attempt, failures []*Error) {
	for _, f := range failures {
		if f.news && !errors.Is(f, keys.ErrNotFound) {
			c.log.Warn("a KMS server does not give a key that another one gives", "provider", c.config.Name,
				"server", f.Server, "key", a.key, "error", f.Error())
		}
	}
}

// on makes an attempt on one server, and records the outcome.
func (c *cluster) on(ctx context.Context, s *server, a attempt) *Error {
	var version wire.Version
	err := s.use(ctx, a.idempotent, func(ctx context.Context, session *session) error {
		version = session.version
		return a.do(ctx, session)
	})
	failure := c.failure(s, a, err)
	switch {
	case c.ctx.Err() != nil || ctx.Err() != nil && errors.Is(context.Cause(ctx), context.Canceled) || errors.Is(err, errBusy):
		// The caller gave up, or had to wait: no news about the server.
	case failure == nil:
		s.well(version)
		s.gave(a.key)
	case failure.suspect:
		c.suspect(s, failure.Reason)
	case failure.final: // the server is right, or this host is to blame
		s.well(version)
	case a.key != "":
		s.well(version)
		failure.news = s.denied(a.key, failure)
	case failure.missing():
		s.well(version)
	default:
		s.failing(failure.Reason, false)
	}
	return failure
}

// suspect records that a server does not answer, and starts a probe if that is news.
func (c *cluster) suspect(s *server, reason string) {
	if !s.failing(reason, true) {
		return
	}
	s.dropAll() // an open session to a hanging server looks as if the server answered
	c.log.Warn("KMS server does not serve", "provider", c.config.Name, "server", s.address, "error", reason)
	c.probe(s)
}

// allSuspect is the answer while every server is known not to answer.
func (c *cluster) allSuspect(operation string) error {
	var failures []*Error
	for _, s := range c.servers {
		failures = append(failures, s.silent(operation))
	}
	return join(failures)
}

// silent returns the error of a server known not to answer.
func (s *server) silent(operation string) *Error {
	return &Error{Server: s.address, Operation: operation, Kind: keys.ErrUnreachable, Reason: s.now(s.address).LastError, suspect: true}
}

// close ends sessions and probes, and waits for the probes.
func (c *cluster) close() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.cancel()
	c.probes.Wait()
	for _, s := range c.servers {
		s.end()
	}
}
