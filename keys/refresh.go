package keys

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// refreshLoop asks for the state of held KEKs every 15 minutes, until Close.
func (c *Cache) refreshLoop() {
	tick := time.NewTicker(refreshEvery)
	defer tick.Stop()
	for {
		select {
		case <-c.ctx.Done():
			return
		case <-tick.C:
			c.refresh()
		}
	}
}

// refresh asks every provider about the KEKs held from the provider. The providers are asked side
// by side: one hanging provider does not delay the others' news.
func (c *Cache) refresh() {
	c.mu.Lock()
	names := make(map[string][]name)
	for n := range c.held {
		names[n.provider] = append(names[n.provider], n)
	}
	c.mu.Unlock()
	for provider, ns := range names {
		c.wg.Go(func() { c.refreshProvider(c.Provider(provider), ns) })
	}
}

// refreshProvider asks p about ns, until p does not answer.
func (c *Cache) refreshProvider(p Provider, ns []name) {
	for _, n := range ns {
		ctx, cancel := context.WithTimeout(c.ctx, fetchLimit)
		state, err := p.State(ctx, n.id)
		cancel()
		if errors.Is(err, ErrNotFound) {
			// A KMS restored from an older backup reports the same, and then this host holds the
			// last copy. So only a key destroyed on purpose is dropped.
			state, err = Missing, nil
		}
		if err != nil {
			c.log.Warn("state of a held key not refreshed; it stays in use", "provider", p.Name(), "key", n.id, "err", err)
			if !aboutKey(p, err) || c.ctx.Err() != nil {
				return
			}
			continue
		}
		c.note(n, state)
	}
}

// note records the state of n as reported by a provider. Only a destroyed key is dropped: files
// in use keep their DEKs, and no further file opens.
func (c *Cache) note(n name, state State) {
	if c.setState(n, state) {
		c.logState(n, state)
	}
}

// setState reports whether state is news.
func (c *Cache) setState(n name, state State) (changed bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, h := range slices.Clone(c.held[n]) {
		changed = changed || h.state != state
		h.state = state
		if state == Destroyed || state == DestroyedCompromised {
			c.drop(n, h)
		}
	}
	return changed
}

// logState logs the consequence of a state that a person should know.
func (c *Cache) logState(n name, state State) {
	switch state {
	case StateUnknown, Active:
		return
	case Compromised:
		c.log.Error("key is compromised: it opens files and wraps no new one; rekey them now", "provider", n.provider, "key", n.id)
	case Missing:
		c.log.Error("key is missing in KMS and stays held: do not lock or unmount; rekey now, this may be the last copy", "provider", n.provider, "key", n.id)
	case Destroyed, DestroyedCompromised:
		c.log.Error("key is destroyed: files under it do not open any more", "provider", n.provider, "key", n.id, "state", state.String())
	default:
		c.log.Warn("key opens files and wraps no new one", "provider", n.provider, "key", n.id, "state", state.String())
	}
}

// stateOf returns the last known state of h, and asks for an unknown state now.
func (c *Cache) stateOf(ctx context.Context, h *holding) (State, error) {
	c.mu.Lock()
	state := h.state
	c.mu.Unlock()
	if state != StateUnknown {
		return state, nil
	}
	state, err := c.Provider(h.kek.Provider).State(ctx, h.kek.ID)
	if err != nil {
		return StateUnknown, err
	}
	c.note(name{h.kek.Provider, h.kek.ID}, state)
	return state, nil
}

// ended returns ErrKeyState if h wraps no new key since its end is past, and the provider does
// not report another end now.
func (c *Cache) ended(ctx context.Context, h *holding) error {
	p, ok := c.Provider(h.kek.Provider).(Ender)
	if !ok {
		return nil
	}
	past := func() bool { end := p.KeyEnds(h.kek.ID); return !end.IsZero() && time.Now().After(end) }
	if !past() {
		return nil
	}
	n := name{h.kek.Provider, h.kek.ID}
	state, err := c.Provider(n.provider).State(ctx, n.id)
	if err == nil {
		c.note(n, state)
	}
	if err == nil && state == Active && !past() {
		return nil
	}
	return fmt.Errorf("%s ended on %s and wraps no new key: %w", n, p.KeyEnds(n.id).UTC().Format(time.DateTime), ErrKeyState)
}
