// Package datastore is a BACKING directory at rest: its settings file, its lock, and
// what this host remembers of it. No mount is needed.
package datastore

import (
	"context"
	"errors"

	"vmcryptfs/keys"
	"vmcryptfs/layout"
)

const (
	Dir          = layout.ReservedPrefix // BACKING/.vmcryptfs
	SettingsName = "datastore.toml"
)

// Why a datastore does not open; ask with errors.Is.
var (
	ErrNone      = errors.New("not a vmcryptfs datastore")
	ErrExists    = errors.New("already a vmcryptfs datastore")
	ErrUntrusted = errors.New("not the datastore this host knows") // another id, KEK or an older serial
	ErrBusy      = errors.New("in use by another vmcryptfs")
)

// Store is an open BACKING. One process at a time holds one that Open locked.
type Store struct{}

// Open opens the datastore at backing and reads its settings, proving nothing yet.
// exclusive takes the lock that a mount holds (ErrBusy); commands that only read do
// without.
func Open(backing string, exclusive bool) (*Store, error) { panic("datastore: not built yet") }

// Init makes backing, which must exist, a datastore: settings sealed under kek and
// remembered by this host. Existing files stay as they are.
func Init(backing string, s layout.Settings, kek *keys.KEK) error {
	panic("datastore: not built yet")
}

// Path is BACKING's absolute path; Fd a descriptor of the directory, owned by the Store.
func (s *Store) Path() string { panic("datastore: not built yet") }
func (s *Store) Fd() int      { panic("datastore: not built yet") }

// Settings are as last read; before Verify only ID, Provider and KEK count.
func (s *Store) Settings() *layout.Settings { panic("datastore: not built yet") }

// Trust compares the settings with what this host remembers, and with pins
// (-o datastore=ID,kek=ID; empty: none): ErrUntrusted. trust accepts and remembers.
func (s *Store) Trust(pinID, pinKEK string, trust bool) error { panic("datastore: not built yet") }

// Verify checks the seal with the KEK from cache, and remembers the datastore:
// keys.ErrSeal, or a keys.ErrNoKey that says why it cannot be known now.
func (s *Store) Verify(ctx context.Context, cache *keys.Cache) error {
	panic("datastore: not built yet")
}

// Verified tells if Verify succeeded.
func (s *Store) Verified() bool { panic("datastore: not built yet") }

// Change seals changed settings under kek with the serial grown, and writes them
// atomically and durably.
func (s *Store) Change(next layout.Settings, kek *keys.KEK) error { panic("datastore: not built yet") }

// Close releases the lock; idempotent.
func (s *Store) Close() error { panic("datastore: not built yet") }
