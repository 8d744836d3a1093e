package kmip

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"vmcryptfs/keys"
	"vmcryptfs/keys/kmip/wire"
)

const (
	firstProbe = 200 * time.Millisecond // after a server failed
	lastProbe  = 2 * time.Second        // the pause between probes grows up to this
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

	mu     sync.Mutex // guards closed, and that no probe starts after it
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

// order is that in which servers are tried: those that are not suspect, the one that
// failed longest ago first; then those that are. So a server that fails now and then
// does not come back to the front by itself.
func (c *cluster) order() (healthy, suspects []*server) {
	for _, s := range c.servers {
		if s.suspect() {
			suspects = append(suspects, s)
		} else {
			healthy = append(healthy, s)
		}
	}
	slices.SortStableFunc(healthy, func(a, b *server) int { return a.lastFailed().Compare(b.lastFailed()) })
	return healthy, suspects
}

// An attempt is one thing to be done on one server.
type attempt struct {
	operation  string // for errors: "Get"
	idempotent bool
	do         func(context.Context, *session) error
}

// try makes an attempt on one server after the other until one answers: it did it, or
// it refused for a reason that is the request's. A key that is not found is looked for
// everywhere. When no server is known to be well it fails at once; the probes in the
// background tell when one is back.
func (c *cluster) try(ctx context.Context, a attempt) error { return c.tryFrom(ctx, "", a) }

// tryFrom is try that begins with the server at the address first, be it suspect.
func (c *cluster) tryFrom(ctx context.Context, first string, a attempt) error {
	ctx, cancel := context.WithTimeout(ctx, c.config.timeout())
	defer cancel()
	healthy, suspects := c.order()
	if len(healthy) == 0 && first == "" {
		return c.allSuspect(a.operation)
	}
	servers := slices.Concat(healthy, suspects)
	if i := slices.IndexFunc(servers, func(s *server) bool { return s.address == first }); i > 0 {
		servers = slices.Concat(servers[i:i+1], servers[:i], servers[i+1:])
	}
	var failures []*Error
	var missing error
	for _, s := range servers {
		if missing != nil && s.suspect() {
			break // those that can be reached all say so
		}
		err := c.on(ctx, s, a)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, keys.ErrNotFound):
			missing = cmp.Or(missing, error(err))
		case !err.another || err.lost && !a.idempotent:
			return err
		default:
			failures = append(failures, err)
		}
		if ctx.Err() != nil {
			break
		}
	}
	// A server that does answer, though not to this, may have it.
	if missing != nil && !slices.ContainsFunc(failures, func(e *Error) bool { return !e.suspect }) {
		return missing
	}
	return join(failures)
}

// on makes an attempt on one server, and keeps how that went.
func (c *cluster) on(ctx context.Context, s *server, a attempt) *Error {
	var version wire.Version
	err := s.use(ctx, a.idempotent, func(ctx context.Context, session *session) error {
		version = session.version
		return a.do(ctx, session)
	})
	failure := c.failure(s, a, err)
	if c.ctx.Err() != nil || ctx.Err() != nil && errors.Is(context.Cause(ctx), context.Canceled) || errors.Is(err, errBusy) {
		return failure // the caller gave up, or had to wait: that says nothing about the server
	}
	if failure == nil || !failure.another {
		s.well(version)
		return failure
	}
	if s.failing(failure.Reason, failure.suspect) {
		s.dropIdle() // an open session to a server that hangs looks as if it answered
		c.log.Warn("KMS server does not serve", "provider", c.config.Name, "server", s.address, "error", failure.Reason)
		c.probe(s)
	}
	return failure
}

// failure says what an error on a server means.
func (c *cluster) failure(s *server, a attempt, err error) *Error {
	if err == nil {
		return nil
	}
	e := &Error{Server: s.address, Operation: operationOf(err, a.operation), Reason: err.Error(), Err: err}
	if _, ok := errors.AsType[*openError](err); ok {
		e.Kind, e.suspect, e.another = keys.ErrUnreachable, true, true
		if known, ok := errors.AsType[*classified](err); ok {
			e.Kind = known.kind
		}
		return e
	}
	_, e.lost = errors.AsType[*lostError](err)
	if answered, ok := errors.AsType[*result](err); ok {
		e.Kind, e.another = answered.kind(), answered.serverFault()
		return e
	}
	if known, ok := errors.AsType[*classified](err); ok {
		e.Kind = known.kind
		e.suspect = e.lost
		e.another = known.kind != keys.ErrNotFound
		return e
	}
	for _, kind := range []error{keys.ErrKeyLength, keys.ErrKeyState} {
		if errors.Is(err, kind) {
			e.Kind = kind
			e.Reason = strings.TrimPrefix(strings.TrimPrefix(e.Reason, kind.Error()), ": ")
			return e
		}
	}
	e.Kind, e.another = keys.ErrUnreachable, true
	if errors.Is(err, wire.ErrMalformed) {
		// It may have done what it cannot talk about. It answers, so it is not suspect:
		// one odd key must not take the whole KMS away.
		e.lost = true
	}
	return e
}

// allSuspect is the answer while every server is known not to answer.
func (c *cluster) allSuspect(operation string) error {
	var failures []*Error
	for _, s := range c.servers {
		failures = append(failures, &Error{Server: s.address, Operation: operation,
			Kind: keys.ErrUnreachable, Reason: s.now(s.address).LastError})
	}
	return join(failures)
}

// join makes one error of those of several servers.
func join(failures []*Error) error {
	if len(failures) == 1 {
		return failures[0]
	}
	var reasons []string
	var errs []error
	for _, f := range failures {
		reasons = append(reasons, f.Server+": "+f.Reason)
		errs = append(errs, f)
	}
	return &Error{Operation: failures[0].Operation, Kind: keys.ErrUnreachable,
		Reason: strings.Join(reasons, "; "), Err: errors.Join(errs...)}
}

// ask asks every server whether it answers, side by side, that nobody asked since its idle
// sessions have ended: so each is asked on a fresh one. Suspects have their probes.
func (c *cluster) ask(ctx context.Context) {
	var asking sync.WaitGroup
	for _, s := range c.servers {
		if s.suspect() || time.Since(s.lastChecked()) < idleTime {
			continue
		}
		asking.Go(func() {
			c.on(ctx, s, attempt{"Get Attributes", true, func(ctx context.Context, s *session) error { return s.answers(ctx) }})
		})
	}
	asking.Wait()
}

// probe asks a suspect server now and then until it answers.
func (c *cluster) probe(s *server) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return
	}
	c.probes.Go(func() {
		pause := time.NewTimer(firstProbe)
		defer pause.Stop()
		for wait := firstProbe; ; wait = min(2*wait, lastProbe) {
			pause.Reset(wait)
			select {
			case <-c.ctx.Done():
				return
			case <-pause.C:
			}
			var version wire.Version
			err := s.use(c.ctx, true, func(ctx context.Context, session *session) error {
				version = session.version
				return session.answers(ctx)
			})
			if c.ctx.Err() != nil {
				return
			}
			if err != nil {
				s.failing(err.Error(), true)
			} else {
				s.well(version)
				c.log.Info("KMS server answers again", "provider", c.config.Name, "server", s.address)
				return
			}
		}
	})
}

// close ends sessions and probes, and waits for the probes.
func (c *cluster) close() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.cancel()
	c.probes.Wait()
	for _, s := range c.servers {
		s.close()
	}
}
