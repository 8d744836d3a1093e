package keys

import (
	"context"
	"fmt"

	"vmcryptfs/layout"
)

// candidate is one way to open a header: a locker, and a KEK that may fit the locker.
type candidate struct {
	locker int
	ref    Ref
}

// Unwrap opens h with the first locker that a provider can serve: the provider of the locker's
// name, or, when no provider has the name, any provider with a key of the identifier and check
// value. Held KEKs are tried before any is fetched. Missing KEKs are fetched side by side: a
// hanging KMS does not keep a file shut that another KMS opens.
//
// Errors: ErrTampered when a right KEK finds a wrong header (another locker would find no better
// one); layout.ErrUnsupported or layout.ErrDamaged when this version knows none of the lockers;
// else the most useful error of Use.
func (c *Cache) Unwrap(ctx context.Context, h *layout.Header) (*DEK, error) {
	cs, err := c.candidates(h)
	if err != nil {
		return nil, fmt.Errorf("unwrap DEK of file %s: %w", h.FileID, err)
	}
	k, err := c.acquireAny(ctx, cs)
	if err != nil {
		return nil, fmt.Errorf("unwrap DEK of file %s: %w", h.FileID, err)
	}
	defer c.release(k.holding)
	return k.kek.Unwrap(h, k.locker)
}

// candidates lists the ways to open h, in the order of h's lockers.
func (c *Cache) candidates(h *layout.Header) ([]candidate, error) {
	var cs []candidate
	unknown, missing := -1, -1
	for i := range h.Lockers {
		l := &h.Lockers[i]
		switch l.Wrap {
		case 0:
			continue
		case layout.WrapKMIP:
		default:
			unknown = i
			continue
		}
		providers := *c.providers.Load()
		if p := c.Provider(l.Provider); p != nil {
			providers = []Provider{p}
		}
		for _, p := range providers {
			cs = append(cs, candidate{i, Ref{Provider: p.Name(), ID: l.KeyID, Check: &l.KCV}})
		}
		if len(providers) == 0 {
			missing = i
		}
	}
	switch {
	case len(cs) > 0:
		return cs, nil
	case missing >= 0:
		l := &h.Lockers[missing]
		return nil, fmt.Errorf("%s: %w", name{l.Provider, l.KeyID}, ErrNoProvider)
	case unknown >= 0:
		return nil, fmt.Errorf("no locker but of wrap %d: %w", h.Lockers[unknown].Wrap, layout.ErrUnsupported)
	default:
		return nil, fmt.Errorf("no locker: %w", layout.ErrDamaged)
	}
}

// fitting is a KEK in use, with the locker fitted by the KEK.
type fitting struct {
	*holding
	locker int
}

// acquireAny returns the first held KEK of cs, else the first to arrive.
func (c *Cache) acquireAny(ctx context.Context, cs []candidate) (fitting, error) {
	if k, ok := c.acquireHeld(cs); ok {
		return k, nil
	}
	if len(cs) == 1 {
		h, err := c.acquire(ctx, cs[0].ref)
		return fitting{h, cs[0].locker}, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type answer struct {
		fitting
		err error
	}
	answers := make(chan answer)
	for _, cand := range cs {
		go func() {
			h, err := c.acquire(ctx, cand.ref)
			answers <- answer{fitting{h, cand.locker}, err}
		}()
	}
	var got fitting
	var why error
	for range cs { // when the loop ends, every goroutine has ended
		switch a := <-answers; {
		case a.err != nil && (why == nil || usefulness(a.err) > usefulness(why)):
			why = a.err
		case a.err != nil:
		case got.holding != nil:
			c.release(a.holding)
		default:
			got = a.fitting
			cancel()
		}
	}
	if got.holding != nil {
		return got, nil
	}
	return fitting{}, why
}

// acquireHeld returns the first held KEK of cs.
func (c *Cache) acquireHeld(cs []candidate) (fitting, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, cand := range cs {
		if h := c.find(cand.ref); h != nil {
			h.users++
			return fitting{h, cand.locker}, true
		}
	}
	return fitting{}, false
}
