package kmip

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"vmcryptfs/keys"
)

// A Provider is one KMS, for as long as it is open.
type Provider struct {
	log   *slog.Logger
	known known
	ends  ends

	mu     sync.Mutex              // guards closed, and that one at a time stores to now
	now    atomic.Pointer[cluster] // its servers as configured now
	closed bool
}

var (
	_ keys.Provider = (*Provider)(nil)
	_ keys.Ender    = (*Provider)(nil)
)

// Open makes a provider; it reads the certificates and does no network I/O. A private
// key or password file that others can read is an error that says which chmod to run.
func Open(c Config, log *slog.Logger) (*Provider, error) {
	if key, reason := c.check(); reason != "" {
		return nil, &ConfigError{File: "provider " + c.Name, Key: key, Reason: reason}
	}
	now, err := readCluster(c, log)
	if err != nil {
		return nil, err
	}
	p := &Provider{log: log.With("provider", c.Name)}
	p.now.Store(now)
	return p, nil
}

// readCluster reads the files of c and makes its cluster.
func readCluster(c Config, log *slog.Logger) (*cluster, error) {
	ids := &identities{config: &c}
	if _, err := ids.get(); err != nil {
		return nil, fmt.Errorf("provider %s: %w", c.Name, err)
	}
	return newCluster(c, ids, log), nil
}

// cluster is its servers as configured now. Who works with one goes on with it to the end
// of the work.
func (p *Provider) cluster() *cluster { return p.now.Load() }

// Name is the provider's name in kms.toml.
func (p *Provider) Name() string { return p.cluster().config.Name }

// Health tells how the servers were when last used or probed; no I/O.
func (p *Provider) Health() []keys.ServerHealth {
	var all []keys.ServerHealth
	for _, s := range p.cluster().servers {
		all = append(all, s.now(s.address))
	}
	return all
}

// AskServers asks each server that was not used for most of a minute whether it answers,
// so that Health is no older than the last call; keys.Cache.Watch calls it.
func (p *Provider) AskServers(ctx context.Context) { p.cluster().ask(ctx) }

// Close ends sessions and goroutines, and waits for them; idempotent.
func (p *Provider) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	p.cluster().close()
	return nil
}

// Get fetches a key that opens files in its state, which is that of the State
// attribute: a server's Get may hand out the bytes in any. One that is Deactivated or
// Compromised comes with a warning in the log. A server that gives a key that accept does
// not want gave a wrong one: the next is asked, and keys.ErrWrongKey is the answer of all.
// accept may be nil. The state returned is the one that Get decided by.
func (p *Provider) Get(ctx context.Context, id string, accept func(*keys.KEK) bool) (*keys.KEK, keys.State, error) {
	var kek *keys.KEK
	var state keys.State
	err := p.cluster().try(ctx, attempt{"Get", id, true, func(ctx context.Context, s *session) (err error) {
		var a attributes
		kek, a, err = p.fetch(ctx, s, id)
		switch {
		case err != nil:
		case accept != nil && !accept(kek): // its state is another key's, too
			kek.Wipe()
			kek, err = nil, fmt.Errorf("%w: its check value is not the known one", keys.ErrWrongKey)
		case a.state.Opens():
			p.known.note(kek, a.dates[initialDate])
			p.ends.note(id, &a)
		default:
			kek.Wipe()
			kek, err = nil, &stateError{state: a.state}
		}
		state = a.state
		switch {
		case err != nil:
		case a.state == keys.Compromised:
			p.log.Error("key is COMPROMISED at the KMS: rekey to a new one", "key", id)
		case a.state == keys.Deactivated:
			p.log.Warn("key is deactivated at the KMS: existing files open, no new ones are made under it", "key", id)
		}
		return err
	}})
	if err != nil {
		return nil, keys.StateUnknown, fmt.Errorf("provider %s: key %q: %w", p.Name(), id, err)
	}
	return kek, state, nil
}

// fetch gets a key and its attributes. The material also lies in the buffer of the TLS
// connection, where nobody can wipe it until a later answer takes its place: so the
// attributes, all of them, are asked for after it, and something as long where they, or a
// refusal, are shorter than the key's answer.
func (p *Provider) fetch(ctx context.Context, s *session, id string) (kek *keys.KEK, a attributes, err error) {
	if kek, err = s.get(ctx, p.Name(), id); err != nil {
		return nil, a, p.explain(ctx, s, id, err)
	}
	length := s.answered
	a, err = s.getAttributes(ctx, id)
	if !broken(err) && s.answered < length {
		s.overwrite(ctx, id, length)
	}
	if err != nil {
		kek.Wipe()
		return nil, attributes{}, err
	}
	return kek, a, nil
}

// explain looks for the key's state where a server would not hand it out, and says
// that instead of the server's more general reason.
func (p *Provider) explain(ctx context.Context, s *session, id string, refusal error) error {
	if broken(refusal) {
		return refusal
	}
	a, err := s.getAttributes(ctx, id, "State")
	if err != nil || a.state == keys.StateUnknown || a.state == keys.Active {
		if broken(err) {
			return err
		}
		return refusal
	}
	return &stateError{a.state, refusal}
}

// State asks for a key's attributes: keys.ErrNotFound also where another key has its
// identifier than the one that Get gave.
func (p *Provider) State(ctx context.Context, id string) (keys.State, error) {
	var state keys.State
	err := p.cluster().try(ctx, attempt{"Get Attributes", id, true, func(ctx context.Context, s *session) error {
		a, err := s.getAttributes(ctx, id)
		if destroyed(err) {
			a.state, err = keys.Destroyed, nil
		}
		if err == nil {
			err = p.same(ctx, s, id, a)
		}
		if err == nil && a.state == keys.PreActive {
			return &stateError{state: a.state} // this server may not have heard yet that it was activated
		}
		if state = a.state; err == nil {
			p.ends.note(id, &a)
		}
		return err
	}})
	if lagging, ok := errors.AsType[*stateError](err); ok && lagging.state == keys.PreActive {
		return keys.PreActive, nil // all say so
	}
	if err != nil {
		return 0, fmt.Errorf("provider %s: state of key %q: %w", p.Name(), id, err)
	}
	return state, nil
}

// Ready asks, now, whether a key may be put in use for new files: by its type, algorithm,
// length, state, usage mask and dates, and whether all servers that answer give the same key
// under the identifier (keys.ErrServersDiffer), which check is of.
func (p *Provider) Ready(ctx context.Context, id string) (check [16]byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, p.cluster().config.timeout())
	defer cancel()
	err = p.cluster().try(ctx, attempt{"Get Attributes", id, true, func(ctx context.Context, s *session) error {
		a, err := s.getAttributes(ctx, id)
		if err != nil {
			return err
		}
		return a.ready(time.Now())
	}})
	if err == nil {
		check, err = p.agree(ctx, id, nil)
	}
	if err != nil {
		return check, fmt.Errorf("provider %s: key %q: %w", p.Name(), id, err)
	}
	return check, nil
}
