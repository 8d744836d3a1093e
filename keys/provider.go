package keys

import (
	"context"
	"errors"
	"slices"
	"time"
)

// State is a key's KMIP state (KMIP 1.4 §3.22), or that its KMS knows no such key.
type State uint8

const (
	StateUnknown State = iota
	PreActive
	Active
	Deactivated
	Compromised
	Destroyed
	DestroyedCompromised
	// Missing: held here, and its KMS says that it has no such key.
	Missing
)

// String is the state in lower-case words, as logs and status show it.
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

// Opens tells if a key in this state opens files that exist. One of unknown state
// does, the KMS gave it and the reason not to know may be an outage; and a missing one
// that is held.
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
	// Get fetches a key that accept wants, from whichever server gives it: ErrNotFound,
	// ErrUnreachable, ErrRefused, ErrKeyState, ErrKeyLength, or ErrWrongKey where accept
	// wants none that they give. accept keeps no key, may be called by and by for several,
	// and may be nil, for any. The caller owns and wipes the KEK. The state is the KEK's
	// after the KEK was handed out, one that opens files; StateUnknown if the KMS tells none.
	Get(ctx context.Context, id string, accept func(*KEK) bool) (*KEK, State, error)
	// Create makes, activates, reads back and checks a new KEK: ErrNameTaken where label
	// is not unique.
	Create(ctx context.Context, label string) (*KEK, error)
	// State asks for the state alone.
	State(ctx context.Context, id string) (State, error)
	// Ready asks, now, if a key may be put in use for new files: ErrKeyState, ErrKeyLength
	// and ErrServersDiffer where it may not. check is the key's check value: what is fetched
	// later is the same key if it has the same.
	Ready(ctx context.Context, id string) (check [16]byte, err error)
	// Health tells how the servers were when last used; no I/O.
	Health() []ServerHealth
	// Close ends sessions and goroutines, and waits for them.
	Close() error
}

// An Ender is a Provider that knows the dates of its keys.
type Ender interface {
	// KeyEnds is when a key will wrap no new file any more, as last told by Get or State;
	// zero: no end is known. No I/O.
	KeyEnds(id string) time.Time
}

// aboutKey tells of an error of p that it is about the key that was asked for, and not that
// p does not answer: then any server of it answered when it was last used.
func aboutKey(p Provider, err error) bool {
	serves := slices.ContainsFunc(p.Health(), func(h ServerHealth) bool { return h.OK })
	return serves || errors.Is(err, ErrNoKey) && !errors.Is(err, ErrUnreachable)
}

// What is known of a server (ServerHealth.State).
const (
	ServerOK      = "ok"      // it answered when it was last asked, minutes ago at most
	ServerDown    = "down"    // it did not answer when it was last asked
	ServerUnknown = "unknown" // it was not asked, or that it answered is long ago
)

// ServerHealth is how one server of a provider is.
type ServerHealth struct {
	Address   string    `json:"address"`
	OK        bool      `json:"ok"`                // it answered when last used, however long ago
	State     string    `json:"state"`             // ServerOK, ServerDown or ServerUnknown
	Since     time.Time `json:"since,omitzero"`    // of State; zero: never used
	Version   string    `json:"version,omitempty"` // negotiated KMIP version
	LastError string    `json:"last_error,omitempty"`
	Checked   time.Time `json:"checked,omitzero"` // when last used or asked; zero: never
	// KeyErrors are the keys that it was last asked for in vain though others may have
	// them, the latest first, a few.
	KeyErrors []KeyError `json:"key_errors,omitempty"`
}

// KeyError is why a server did not give a key.
type KeyError struct {
	Key   string    `json:"key"`
	Error string    `json:"error"`
	Since time.Time `json:"since"` // when it was asked last
}
