package keys

import (
	"context"
	"errors"
	"slices"
	"time"
)

// State is a key's KMIP state (KMIP 1.4 §3.22), or Missing.
type State uint8

const (
	StateUnknown State = iota
	PreActive
	Active
	Deactivated
	Compromised
	Destroyed
	DestroyedCompromised
	// Missing: the key is held here, and the KMS reports no such key.
	Missing
)

// String returns the state in lower-case words, for logs and status.
func (s State) String() string {
	switch s {
	case PreActive:
		return "pre-active"
	case Active:
		return "active"
	case Deactivated:
		return "deactivated"
	case Compromised:
		return "compromised"
	case Destroyed:
		return "destroyed"
	case DestroyedCompromised:
		return "destroyed compromised"
	case Missing:
		return "missing in KMS"
	default:
		return "unknown"
	}
}

// Opens reports whether a key in this state opens existing files. StateUnknown opens: the KMS
// gave the key, and an outage may hide the state. Missing opens: the key is held.
func (s State) Opens() bool {
	switch s {
	case StateUnknown, Active, Deactivated, Compromised, Missing:
		return true
	default:
		return false
	}
}

// Provider is one KMS. Safe for concurrent use; every method ends when ctx does and
// is bounded by the provider's own timeout.
type Provider interface {
	// Name is the provider's name in kms.toml.
	Name() string
	// Get fetches a key accepted by accept, from whichever server gives one, and the key's state,
	// which opens files. The state is learned after the key and is StateUnknown where the KMS
	// tells none. Errors: ErrNotFound, ErrUnreachable, ErrRefused, ErrKeyState, ErrKeyLength, or
	// ErrWrongKey where accept refuses every key given. accept keeps no key and may be called for
	// several keys in turn; a nil accept accepts any key. The caller owns and wipes the KEK.
	Get(ctx context.Context, id string, accept func(*KEK) bool) (*KEK, State, error)
	// Create makes, activates, reads back and checks a new KEK: ErrNameTaken where label
	// is not unique.
	Create(ctx context.Context, label string) (*KEK, error)
	// State asks for the state alone.
	State(ctx context.Context, id string) (State, error)
	// Ready asks the KMS now whether a key may be put in use for new files, else ErrKeyState,
	// ErrKeyLength or ErrServersDiffer. check is the key's check value: a key fetched later with
	// the same check value is the same key.
	Ready(ctx context.Context, id string) (check [16]byte, err error)
	// Health returns the servers' condition at their last use; no I/O.
	Health() []ServerHealth
	// Close ends sessions and goroutines, and waits for their end.
	Close() error
}

// An Ender is a Provider that knows the dates of its keys.
type Ender interface {
	// KeyEnds is when a key will wrap no new file any more, as last told by Get or State;
	// zero: no end is known. No I/O.
	KeyEnds(id string) time.Time
}

// aboutKey reports whether an error of p concerns the requested key rather than p as a whole:
// some server of p answered at its last use, or the error is itself an answer about the key.
func aboutKey(p Provider, err error) bool {
	serves := slices.ContainsFunc(p.Health(), func(h ServerHealth) bool { return h.OK })
	return serves || errors.Is(err, ErrNoKey) && !errors.Is(err, ErrUnreachable)
}

// Conditions of a server (ServerHealth.State).
const (
	ServerOK      = "ok"      // the last request was answered, minutes ago at most
	ServerDown    = "down"    // the last request was not answered
	ServerUnknown = "unknown" // never asked, or answered long ago
)

// ServerHealth is how one server of a provider is.
type ServerHealth struct {
	Address   string    `json:"address"`
	OK        bool      `json:"ok"`                // answered at the last use, however long ago
	State     string    `json:"state"`             // ServerOK, ServerDown or ServerUnknown
	Since     time.Time `json:"since,omitzero"`    // of State; zero: never used
	Version   string    `json:"version,omitempty"` // negotiated KMIP version
	LastError string    `json:"last_error,omitempty"`
	Checked   time.Time `json:"checked,omitzero"` // when last used or asked; zero: never
	// KeyErrors are a few keys last requested in vain from this server though other servers may
	// have the keys, the latest first.
	KeyErrors []KeyError `json:"key_errors,omitempty"`
}

// KeyError is why a server did not give a key.
type KeyError struct {
	Key   string    `json:"key"`
	Error string    `json:"error"`
	Since time.Time `json:"since"` // of the last request
}
