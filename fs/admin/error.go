package admin

import (
	"errors"

	"golang.org/x/sys/unix"

	"vmcryptfs/fs/datastore"
	"vmcryptfs/fs/rekey"
	"vmcryptfs/keys"
	"vmcryptfs/layout"
)

// Error is a daemon's answer that it could not do what was asked. Over the socket
// travels a reason; Unwrap turns it back into the error that it names.
type Error struct {
	Message string `json:"error"`
	Reason  string `json:"reason"`
}

// reason is one error that keeps its identity across the socket.
type reason struct {
	word string
	err  error
}

// ErrRekeying: a rekey of the same mount is under way.
var ErrRekeying = errors.New("another rekey of this datastore is under way")

// reasons lists them, the more particular first.
func reasons() []reason {
	return []reason{
		{"bad_request", rekey.ErrRequest},
		{"rekeying", ErrRekeying},
		{"busy", unix.EBUSY},
		{"tampered", keys.ErrTampered},
		{"damaged", layout.ErrDamaged},
		{"unsupported", layout.ErrUnsupported},
		{"untrusted", datastore.ErrUntrusted},
		{"settings_seal", keys.ErrSeal},
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

// newError makes the answer for err.
func newError(err error) *Error {
	for _, r := range reasons() {
		if errors.Is(err, r.err) {
			return &Error{Message: err.Error(), Reason: r.word}
		}
	}
	return &Error{Message: err.Error(), Reason: "failed"}
}

// Error is the daemon's message.
func (e *Error) Error() string { return e.Message }

// Unwrap is the error that the reason names, or nil.
func (e *Error) Unwrap() error {
	for _, r := range reasons() {
		if r.word == e.Reason {
			return r.err
		}
	}
	return nil
}
