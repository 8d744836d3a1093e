package keys

import (
	"context"
	"errors"
	"time"
)

// Why a key is not to be had. All of them but ErrTampered, ErrSeal and
// ErrKeyLength satisfy errors.Is(err, ErrNoKey): ENOKEY through the mount, exit
// code 3 in commands.
var (
	ErrNoKey       = errors.New("key not available")
	ErrLocked      error // the datastore is locked
	ErrNotFound    error // the KMS has no such key (missing in KMS)
	ErrUnreachable error // no server of the provider answers (cluster unreachable)
	ErrRefused     error // the KMS denies it
	ErrKeyState    error // not active or enabled
	ErrWrongKey    error // another key has this identifier
	ErrNoProvider  error // no such provider is configured
	ErrKeyLength   = errors.New("key is not a 256-bit AES key")
	ErrTampered    = errors.New("header was changed or belongs to another file")
	ErrSeal        = errors.New("the settings' seal is wrong")
)

// State is a key's KMIP state (KMIP 1.4 §3.22).
type State uint8

const (
	StateUnknown State = iota
	PreActive
	Active
	Deactivated
	Compromised
	Destroyed
	DestroyedCompromised
)

// Provider is one KMS. Safe for concurrent use; every method ends when ctx does and
// is bounded by the provider's own timeout.
type Provider interface {
	// Name is the provider's name in kms.toml.
	Name() string
	// Get fetches a key: ErrNotFound, ErrUnreachable, ErrRefused, ErrKeyState or
	// ErrKeyLength. The caller owns and wipes the KEK.
	Get(ctx context.Context, id string) (*KEK, error)
	// Create makes, activates, reads back and checks a new KEK. label is unique.
	Create(ctx context.Context, label string) (*KEK, error)
	// State asks for the state alone.
	State(ctx context.Context, id string) (State, error)
	// Health tells how the servers were when last used; no I/O.
	Health() []ServerHealth
	// Close ends sessions and goroutines, and waits for them.
	Close() error
}

// ServerHealth is how one server of a provider is.
type ServerHealth struct {
	Address   string    `json:"address"`
	OK        bool      `json:"ok"`
	Version   string    `json:"version,omitempty"` // negotiated KMIP version
	LastError string    `json:"last_error,omitempty"`
	Checked   time.Time `json:"checked,omitzero"` // zero: never used
}
