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

// A Provider is one KMS, from Open to Close.
type Provider struct {
	log   *slog.Logger
	known known
	ends  ends

	mu     sync.Mutex              // guards closed, and stores to now
	now    atomic.Pointer[cluster] // the servers of the present configuration
	closed bool
}

var (
	_ keys.Provider = (*Provider)(nil)
	_ keys.Ender    = (*Provider)(nil)
)

// Open makes a provider; Open reads the certificates and does no network I/O. A private key or
// password file readable for others is an error that names the chmod to run.
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

// readCluster reads the files of c and makes the cluster.
func readCluster(c Config, log *slog.Logger) (*cluster, error) {
	ids := &identities{config: &c}
	if _, err := ids.get(); err != nil {
		return nil, fmt.Errorf("provider %s: %w", c.Name, err)
	}
	return newCluster(c, ids, log), nil
}

// cluster returns the servers of the present configuration. Work begun with a cluster continues
// with the same cluster to the end.
func (p *Provider) cluster() *cluster { return p.now.Load() }

// Name is the provider's name in kms.toml.
func (p *Provider) Name() string { return p.cluster().config.Name }

// Health returns the servers' condition at the last use or probe; no I/O.
func (p *Provider) Health() []keys.ServerHealth {
	var all []keys.ServerHealth
	for _, s := range p.cluster().servers {
		all = append(all, s.now(s.address))
	}
	return all
}

// AskServers asks each server that was unused for most of a minute whether the server answers, so
// Health is no older than the last call. keys.Cache.Watch calls AskServers.
func (p *Provider) AskServers(ctx context.Context) { p.cluster().ask(ctx) }

// Close ends sessions and goroutines, and waits for their end; idempotent.
func (p *Provider) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	p.cluster().close()
	return nil
}

// Get fetches a key, with the state decided by the State attribute; the state must open files. (A
// server's Get may hand out the bytes of a key in any state.) A Deactivated or Compromised key
// comes with a warning in the log. A key refused by accept is a wrong key of that server: the
// next server is asked, and when every server gives a wrong key, the error is keys.ErrWrongKey. A
// nil accept accepts any key.
func (p *Provider) Get(ctx context.Context, id string, accept func(*keys.KEK) bool) (*keys.KEK, keys.State, error) {
	var kek *keys.KEK
	var state keys.State
	err := p.cluster().try(ctx, attempt{"Get", id, true, func(ctx context.Context, s *session) (err error) {
		var a attributes
		kek, a, err = p.fetch(ctx, s, id)
		switch {
		case err != nil:
		case accept != nil && !accept(kek): // the state belongs to another key, too
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

// fetch gets a key and the key's attributes. The material also lies in the buffer of the TLS
// connection, where nobody can wipe it until a later answer overwrites the buffer. So all
// attributes are requested after the key, and a padded answer follows where the attributes, or a
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

// explain asks for the state of a key that a server refused to hand out, and returns the state
// instead of the server's more general reason.
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

// State requests a key's attributes. The error is keys.ErrNotFound also where the identifier
// names another key than the one given by Get.
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
			return &stateError{state: a.state} // this server may not have heard of the activation yet
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

// Ready asks the servers now whether a key may be put in use for new files: by type, algorithm,
// length, state, usage mask and dates of the key, and by whether all answering servers give the
// same key under the identifier (else keys.ErrServersDiffer). check is the key's check value.
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
