package wire

import (
	"errors"

	"golang.org/x/sys/unix"

	"vmcryptfs/fs/datastore"
	"vmcryptfs/fs/work"
	"vmcryptfs/keys"
	"vmcryptfs/layout"
)

// ErrRequest says that a request makes no sense. Nothing was done.
var ErrRequest = errors.New("bad request")

// Error is an error in JSON: a message, and one word for the reason. Unwrap gives the error of the
// word.
type Error struct {
	Message string `json:"error"`
	Reason  string `json:"reason"`
}

// reason is an error that keeps its identity in JSON.
type reason struct {
	word string
	err  error
}

// reasons lists all reasons, the more particular ones first.
func reasons() []reason {
	return []reason{
		{"bad_request", ErrRequest},
		{"rekeying", work.ErrBusy}, // from the time when a rekey was the only work
		{"busy", unix.EBUSY},
		{"tampered", keys.ErrTampered},
		{"damaged", layout.ErrDamaged},
		{"unsupported", layout.ErrUnsupported},
		{"untrusted", datastore.ErrUntrusted},
		{"settings_seal", keys.ErrSeal},
		{"settings_changed", datastore.ErrChanged},
		{"key_length", keys.ErrKeyLength},
		{"locked", keys.ErrLocked},
		{"missing_in_kms", keys.ErrNotFound},
		{"cluster_unreachable", keys.ErrUnreachable},
		{"refused", keys.ErrRefused},
		{"not_active_or_enabled", keys.ErrKeyState},
		{"wrong_key", keys.ErrWrongKey},
		{"servers_differ", keys.ErrServersDiffer},
		{"no_provider", keys.ErrNoProvider},
		{"no_key", keys.ErrNoKey},
		{"read_only", unix.EROFS},
		{"no_space", unix.ENOSPC},
	}
}

// NewError gives err for JSON. An error without a word of its own has the reason "failed".
func NewError(err error) *Error {
	for _, r := range reasons() {
		if errors.Is(err, r.err) {
			return &Error{Message: err.Error(), Reason: r.word}
		}
	}
	return &Error{Message: err.Error(), Reason: "failed"}
}

// Error is the message.
func (e *Error) Error() string { return e.Message }

// Unwrap gives the error of the reason, or nil.
func (e *Error) Unwrap() error {
	for _, r := range reasons() {
		if r.word == e.Reason {
			return r.err
		}
	}
	return nil
}
