package keys

import (
	"context"
	"log/slog"
	"time"

	"vmcryptfs/layout"
)

// Ref names a KEK and says how to know it again.
type Ref struct {
	Provider string
	ID       string
	Check    *[16]byte // key check value; nil: not known yet
}

// Cache holds KEKs in use on this host. Concurrent needs of one KEK share one
// request to its provider; a failed look-up is remembered for a while. Safe for
// concurrent use.
type Cache struct{}

// NewCache takes over providers: Close closes them.
func NewCache(log *slog.Logger, providers ...Provider) *Cache { panic("keys: not built yet") }

// Use calls f with the KEK, fetched if it is not held. The KEK lives through f even
// if the cache is locked meanwhile; f keeps no reference. Errors are those of
// Provider.Get, ErrWrongKey, ErrLocked, ErrNoProvider, or f's.
func (c *Cache) Use(ctx context.Context, ref Ref, f func(*KEK) error) error {
	panic("keys: not built yet")
}

// Unwrap opens h with the first of its lockers that a provider can serve: the
// provider of the locker's name, or, when none has that name, any that holds the
// identifier with its check value.
func (c *Cache) Unwrap(ctx context.Context, h *layout.Header) (*DEK, error) {
	panic("keys: not built yet")
}

// Provider gives a provider by name, or nil.
func (c *Cache) Provider(name string) Provider { panic("keys: not built yet") }

// Providers gives all providers.
func (c *Cache) Providers() []Provider { panic("keys: not built yet") }

// Lock wipes every KEK and refuses Use until Unlock.
func (c *Cache) Lock() { panic("keys: not built yet") }

// Unlock allows Use again; it fetches nothing and forgets failed look-ups.
func (c *Cache) Unlock() { panic("keys: not built yet") }

// Locked tells if Lock was called after the last Unlock.
func (c *Cache) Locked() bool { panic("keys: not built yet") }

// HeldKey is a KEK held in memory.
type HeldKey struct {
	Provider string    `json:"provider"`
	ID       string    `json:"id"`
	State    string    `json:"state"`
	Since    time.Time `json:"since"`
}

// Held lists the KEKs held, by provider and identifier.
func (c *Cache) Held() []HeldKey { panic("keys: not built yet") }

// Close wipes all KEKs, closes the providers and waits for what it started.
func (c *Cache) Close() error { panic("keys: not built yet") }
