package keys

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// fetch is one request for a KEK, with any number of waiting callers. No caller can cancel a
// fetch: the fetch ends by the provider's timeout, and the result serves the next caller.
type fetch struct {
	ref     Ref                  // of the first caller
	done    chan struct{}        // closed once every waiter has an answer
	waiters map[*waiter]struct{} // guarded by Cache.mu
}

// waiter is one caller of a fetch. got and err are set under Cache.mu before done is
// closed.
type waiter struct {
	ref Ref
	got *holding // with one use counted for the waiter
	err error
}

// acquire returns the KEK of ref with one more use, released by the caller.
func (c *Cache) acquire(ctx context.Context, ref Ref) (*holding, error) {
	h, f, w, err := c.findOrFetch(ref)
	if f == nil {
		return h, err
	}
	select {
	case <-f.done:
		return w.got, w.err
	case <-ctx.Done():
		c.leave(f, w)
	}
	if errors.Is(ctx.Err(), context.Canceled) {
		return nil, fmt.Errorf("wait for %s: %w", ref.name(), ctx.Err())
	}
	return nil, fmt.Errorf("wait for %s: %w: %w", ref.name(), ErrUnreachable, ctx.Err())
}

// findOrFetch returns a holding with one more use, or a fetch and a place among the fetch's
// waiters, or an error.
func (c *Cache) findOrFetch(ref Ref) (*holding, *fetch, *waiter, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := ref.name()
	if c.locked {
		return nil, nil, nil, fmt.Errorf("%s: %w", n, ErrLocked)
	}
	if h := c.find(ref); h != nil {
		h.users++
		return h, nil, nil, nil
	}
	if err := c.failed.recall(ref, time.Now()); err != nil {
		return nil, nil, nil, err
	}
	f := c.fetches[n]
	if f == nil {
		p := c.Provider(ref.Provider)
		if p == nil {
			return nil, nil, nil, fmt.Errorf("%s: %w", n, ErrNoProvider)
		}
		f = &fetch{ref: ref, done: make(chan struct{}), waiters: make(map[*waiter]struct{})}
		c.fetches[n] = f
		c.wg.Go(func() { c.run(f, p) })
	}
	w := &waiter{ref: ref}
	f.waiters[w] = struct{}{}
	return nil, f, w, nil
}

// leave ends the wait of a caller that gave up, perhaps just as the answer came.
func (c *Cache) leave(f *fetch, w *waiter) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(f.waiters, w)
	if w.got != nil {
		c.unuse(w.got)
	}
}

// run asks the provider and answers every waiter.
func (c *Cache) run(f *fetch, p Provider) {
	defer close(f.done)
	ctx, cancel := context.WithTimeout(c.ctx, fetchLimit)
	defer cancel()
	kek, state, err := get(ctx, p, f.ref.ID, func(k *KEK) bool { return c.wants(f, k) })
	if c.land(f, kek, state, err, err != nil && aboutKey(p, err)) {
		c.logState(f.ref.name(), state)
	}
}

// wants reports whether any caller waiting for a KEK accepts k.
func (c *Cache) wants(f *fetch, k *KEK) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return f.wants(k)
}

// wants is Cache.wants. Called with Cache.mu held.
func (f *fetch) wants(k *KEK) bool {
	for w := range f.waiters {
		if w.ref.accepts(k) {
			return true
		}
	}
	return f.ref.accepts(k)
}

// land answers every waiter, and reports whether a KEK is newly held.
func (c *Cache) land(f *fetch, kek *KEK, state State, err error, aboutKey bool) (kept bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := f.ref.name()
	if c.fetches[n] != f { // locked or closed meanwhile
		kek.Wipe()
		f.fail(fmt.Errorf("%s: %w", n, ErrLocked))
		return false
	}
	delete(c.fetches, n)
	if err != nil {
		err = fmt.Errorf("%s: %w", n, err)
		c.failed.remember(f.ref, err, aboutKey, time.Now())
		for w := range f.waiters {
			c.failed.remember(w.ref, err, aboutKey, time.Now())
		}
		f.fail(err)
		return false
	}
	h := &holding{kek: kek, since: time.Now(), state: state}
	c.settle(f, h)
	return h.kept
}

// get fetches a KEK and its state by one request to p. A KEK of unknown state opens files;
// a KEK in a state that opens nothing is wiped and gives ErrKeyState.
func get(ctx context.Context, p Provider, id string, accept func(*KEK) bool) (*KEK, State, error) {
	kek, state, err := p.Get(ctx, id, accept)
	if err != nil {
		if ctx.Err() != nil && !errors.Is(err, ErrNoKey) {
			err = fmt.Errorf("%w: %w", ErrUnreachable, err)
		}
		return nil, StateUnknown, err
	}
	if !state.Opens() {
		kek.Wipe()
		return nil, state, fmt.Errorf("%w: the key is %s", ErrKeyState, state)
	}
	return kek, state, nil
}

// settle answers the waiters of f with h, each by its own check value, and keeps h if any waiter
// accepts h. A KEK right for nobody is not kept: the KMS may have been restored wrongly, and may
// be put right. Called with mu held.
func (c *Cache) settle(f *fetch, h *holding) {
	n := f.ref.name()
	if !f.wants(h.kek) {
		defer h.kek.Wipe() // the waiters may look at the KEK once more
	} else if same := c.find(Ref{Provider: n.provider, ID: n.id, Check: &h.kek.check}); same != nil {
		h.kek.Wipe()
		h = same
	} else {
		h.kept = true
		c.held[n] = append(c.held[n], h)
	}
	wrong := fmt.Errorf("%s: %w", n, ErrWrongKey)
	for w := range f.waiters {
		if !w.ref.accepts(h.kek) {
			c.failed.remember(w.ref, wrong, true, time.Now())
			w.err = wrong
			continue
		}
		h.users++
		w.got = h
	}
}

// fail gives every waiter the same error. Called with Cache.mu held.
func (f *fetch) fail(err error) {
	for w := range f.waiters {
		w.err = err
	}
}
