package kmip

import (
	"errors"
	"fmt"
	"strings"
	"unicode"

	"github.com/gemalto/kmip-go/kmip14"
	"github.com/gemalto/kmip-go/kmip20"

	"vmcryptfs/keys"
)

// An Error says why an operation on a server failed. An Error unwraps to a sentinel of package
// keys and to its cause.
type Error struct {
	Server    string // host:port; empty: several, named in Reason
	Operation string // "Get"
	Reason    string // in words; the server's own are quoted
	Kind      error  // keys.ErrNotFound, …
	Err       error  // the cause

	final   bool // no other server can do better
	lost    bool // the server may have done the operation all the same
	suspect bool // the server does not answer
	news    bool // the server gave another answer about this key before
}

// Error is one line: server, operation, reason.
func (e *Error) Error() string {
	s := fmt.Sprintf("%s: %v", e.Operation, e.Kind)
	if e.Server != "" {
		s = e.Server + ": " + s
	}
	if e.Reason != "" {
		s += ": " + e.Reason
	}
	return s
}

// Unwrap returns Kind and Err.
func (e *Error) Unwrap() []error {
	if e.Err == nil {
		return []error{e.Kind}
	}
	return []error{e.Kind, e.Err}
}

// operationOf returns the operation that failed with err: one attempt may need several
// operations.
func operationOf(err error, otherwise string) string {
	call, ok := errors.AsType[*callError](err)
	if !ok {
		return otherwise
	}
	return operationName(call.operation)
}

// operationName returns an operation's name in the standard's spelling: "Get Attributes".
func operationName(o kmip14.Operation) string {
	var name strings.Builder
	for i, r := range o.String() {
		if i > 0 && unicode.IsUpper(r) {
			name.WriteByte(' ')
		}
		name.WriteRune(r)
	}
	return name.String()
}

// A result is a server's answer to a request not done (KMIP 1.4 §9.1.3.2.28: Result Reason).
type result struct {
	status  kmip14.ResultStatus
	reason  kmip20.ResultReason // including those of 1.4
	message string              // the server's, untrusted
}

func (r *result) Error() string {
	s := fmt.Sprintf("the server says %s", r.reason)
	if r.status == kmip14.ResultStatusOperationPending {
		s = "the server wants to answer later"
	}
	if r.message != "" {
		s += fmt.Sprintf(": %q", shorten(r.message))
	}
	return s
}

// kind returns the sentinel for the result's meaning to the caller.
func (r *result) kind() error {
	switch r.reason {
	case kmip20.ResultReasonItemNotFound, kmip20.ResultReasonObjectNotFound:
		return keys.ErrNotFound
	case kmip20.ResultReasonObjectDestroyed, kmip20.ResultReasonObjectArchived,
		kmip20.ResultReasonWrongKeyLifecycleState:
		return keys.ErrKeyState
	}
	return keys.ErrRefused
}

// shorten bounds a server's words and removes characters that disturb a terminal or a log.
func shorten(s string) string {
	const most = 200
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return -1
		}
		return r
	}, s)
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "…"
	}
	return s
}
