package keys

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// refreshEvery is how often the state of held KEKs is asked for.
	refreshEvery = 15 * time.Minute
	// fetchLimit bounds a request to a provider whose own timeout fails.
	fetchLimit = 30 * time.Second
)

// Ref names a KEK and how to recognise the KEK.
type Ref struct {
	Provider string
	ID       string
	Check    *[16]byte // key check value; nil: not known yet
	// Proves reports whether a KEK is the right one where Check is nil; with Proves nil too, any
	// KEK is accepted. Proves must only compute, since callers hold locks.
	Proves func(*KEK) bool
}

func (r Ref) accepts(k *KEK) bool {
	if r.Check != nil {
		return *r.Check == k.check
	}
	return r.Proves == nil || r.Proves(k)
}

func (r Ref) name() name { return name{r.Provider, r.ID} }

// name identifies a KEK at a provider.
type name struct{ provider, id string }

func (n name) String() string { return fmt.Sprintf("KEK %q of provider %q", n.id, n.provider) }

// Cache holds KEKs in use on this host. Concurrent needs of one KEK share one request to the
// provider. A failed look-up is remembered for seconds. Safe for concurrent use.
//
// A KEK is held until Lock or Close, or until its provider, asked every 15 minutes, reports the
// KEK destroyed. A provider that does not answer, or that has lost the key, never costs a held
// KEK.
type Cache struct {
	log       *slog.Logger
	providers atomic.Pointer[[]Provider] // immutable slice; Add stores a new slice, under mu

	ctx    context.Context // ends with Close; bounds fetches and the refresh
	cancel context.CancelFunc
	wg     sync.WaitGroup // fetches and the refresh

	mu      sync.Mutex // a leaf; never held over a provider's work or a caller's f
	held    map[name][]*holding
	fetches map[name]*fetch // under way
	failed  failures
	locked  bool
	closed  bool
}

// holding is a KEK in memory with its uses. One identifier has two holdings only while a KMS
// gives out another key under the identifier than before.
type holding struct {
	kek   *KEK      // immutable
	since time.Time // immutable

	// Guarded by Cache.mu.
	state State
	users int  // wiped when the last ends, if dropped
	kept  bool // in Cache.held
}

// NewCache takes over providers: Close closes all of them. The providers' names must differ.
func NewCache(log *slog.Logger, providers ...Provider) *Cache {
	ctx, cancel := context.WithCancel(context.Background())
	c := &Cache{
		log:     log,
		ctx:     ctx,
		cancel:  cancel,
		held:    make(map[name][]*holding),
		fetches: make(map[name]*fetch),
		failed:  make(failures),
	}
	providers = slices.Clone(providers)
	c.providers.Store(&providers)
	c.wg.Go(c.refreshLoop)
	return c
}

// Use calls f with the KEK, fetched unless held. The KEK lives until f returns, even if the cache
// is locked meanwhile; f keeps no reference. Errors are those of Provider.Get, ErrWrongKey,
// ErrLocked, ErrNoProvider, or f's. When ctx ends first, the error is ErrUnreachable and ctx's
// error, or ctx's error alone if ctx was cancelled.
func (c *Cache) Use(ctx context.Context, ref Ref, f func(*KEK) error) error {
	h, err := c.acquire(ctx, ref)
	if err != nil {
		return err
	}
	defer c.release(h)
	return f(h.kek)
}

// UseForNew is Use for wrapping new DEKs. The KEK must be Active and must not be past its end by
// the dates at the KMS, else ErrKeyState. (Use opens files under a Deactivated or Compromised
// KEK.) The KMS is asked once more about a KEK whose state was not learned with the fetch, or
// whose end is past.
func (c *Cache) UseForNew(ctx context.Context, ref Ref, f func(*KEK) error) error {
	h, err := c.acquire(ctx, ref)
	if err != nil {
		return err
	}
	defer c.release(h)
	state, err := c.stateOf(ctx, h)
	if err != nil {
		return fmt.Errorf("state of %s: %w", ref.name(), err)
	}
	if state != Active {
		return fmt.Errorf("%s is %s and wraps no new key: %w", ref.name(), state, ErrKeyState)
	}
	if err := c.ended(ctx, h); err != nil {
		return err
	}
	return f(h.kek)
}

// Provider returns the provider with the name, or nil.
func (c *Cache) Provider(name string) Provider {
	for _, p := range *c.providers.Load() {
		if p.Name() == name {
			return p
		}
	}
	return nil
}

// Providers returns all providers.
func (c *Cache) Providers() []Provider { return slices.Clone(*c.providers.Load()) }

// Add takes over one more provider for the rest of the cache's life. A provider with a taken
// name, or added after Close, is closed and refused.
func (c *Cache) Add(p Provider) error {
	err := c.add(p)
	if err != nil {
		p.Close() // the error above tells more
	}
	return err
}

func (c *Cache) add(p Provider) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return fmt.Errorf("add provider %q: %w", p.Name(), ErrLocked)
	}
	if c.Provider(p.Name()) != nil {
		return fmt.Errorf("add provider %q: there is one of that name", p.Name())
	}
	more := append(c.Providers(), p)
	c.providers.Store(&more)
	return nil
}

// Lock wipes every KEK and refuses Use until Unlock. A KEK in use is wiped when the
// last use ends; one being fetched is not kept.
func (c *Cache) Lock() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.locked = true
	c.dropAll()
}

// Unlock allows Use again. Nothing is fetched, and failed look-ups are forgotten.
func (c *Cache) Unlock() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.locked = c.closed
	clear(c.failed)
}

// Locked reports whether Lock was called after the last Unlock.
func (c *Cache) Locked() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.locked
}

// HeldKey is a KEK held in memory.
type HeldKey struct {
	Provider string    `json:"provider"`
	ID       string    `json:"id"`
	State    string    `json:"state"` // of State.String, when last asked
	Since    time.Time `json:"since"`
}

// Held lists the KEKs held, by provider and identifier.
func (c *Cache) Held() []HeldKey {
	c.mu.Lock()
	defer c.mu.Unlock()
	keys := []HeldKey{} // JSON shows an empty list, not null
	for n, hs := range c.held {
		for _, h := range hs {
			keys = append(keys, HeldKey{Provider: n.provider, ID: n.id, State: h.state.String(), Since: h.since})
		}
	}
	slices.SortFunc(keys, func(a, b HeldKey) int {
		return cmp.Or(cmp.Compare(a.Provider, b.Provider), cmp.Compare(a.ID, b.ID), a.Since.Compare(b.Since))
	})
	return keys
}

// Close wipes all KEKs (a KEK in use when the use ends), closes the providers and waits for all
// goroutines of the cache. Idempotent.
func (c *Cache) Close() error {
	c.mu.Lock()
	closed := c.closed
	c.closed = true
	c.locked = true
	c.dropAll()
	c.mu.Unlock()
	c.cancel()
	c.wg.Wait()
	if closed {
		return nil
	}
	var errs []error
	for _, p := range *c.providers.Load() {
		if err := p.Close(); err != nil {
			errs = append(errs, fmt.Errorf("close provider %q: %w", p.Name(), err))
		}
	}
	return errors.Join(errs...)
}

// find returns a holding accepted by ref, or nil. Called with mu held.
func (c *Cache) find(ref Ref) *holding {
	for _, h := range c.held[ref.name()] {
		if ref.accepts(h.kek) {
			return h
		}
	}
	return nil
}

// drop removes h from the held KEKs and wipes h, at once or when the last use ends. Called with
// mu held.
func (c *Cache) drop(n name, h *holding) {
	h.kept = false
	c.held[n] = slices.DeleteFunc(c.held[n], func(o *holding) bool { return o == h })
	if len(c.held[n]) == 0 {
		delete(c.held, n)
	}
	if h.users == 0 {
		h.kek.Wipe()
	}
}

// dropAll drops every holding and gives up every fetch: a KEK that arrives later belongs to a
// fetch unknown to the cache. Called with mu held.
func (c *Cache) dropAll() {
	for n, hs := range c.held {
		for _, h := range slices.Clone(hs) {
			c.drop(n, h)
		}
	}
	clear(c.fetches)
}

// unuse ends a use. Called with mu held.
func (c *Cache) unuse(h *holding) {
	h.users--
	if h.users == 0 && !h.kept {
		h.kek.Wipe()
	}
}

// release ends a use.
func (c *Cache) release(h *holding) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.unuse(h)
}
