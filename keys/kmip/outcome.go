package kmip

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/gemalto/kmip-go/kmip20"

	"vmcryptfs/keys"
	"vmcryptfs/keys/kmip/wire"
)

// A stateError reports that a key's state forbids the request.
type stateError struct {
	state keys.State
	cause error // the server's answer to the request; may be nil
}

func (s *stateError) Error() string {
	text := fmt.Sprintf("%v: the key is %s", keys.ErrKeyState, s.state)
	if s.cause != nil {
		text += ": " + s.cause.Error()
	}
	return text
}

func (s *stateError) Unwrap() []error {
	if s.cause == nil {
		return []error{keys.ErrKeyState}
	}
	return []error{keys.ErrKeyState, s.cause}
}

// ended reports whether a server called a key destroyed, by state or as the reason of a refusal.
// The answer is final for all servers, for no key comes back from destruction.
func ended(err error) bool {
	if s, ok := errors.AsType[*stateError](err); ok && (s.state == keys.Destroyed || s.state == keys.DestroyedCompromised) {
		return true
	}
	return destroyed(err)
}

// A hostError is a failure of this host with data from a server.
type hostError struct{ err error }

func (h *hostError) Error() string { return h.err.Error() }
func (h *hostError) Unwrap() error { return h.err }

var errHost = errors.New("this host cannot use the answer")

// destroyed reports whether err is a refusal because the key is destroyed.
func destroyed(err error) bool { return reasonIs(err, kmip20.ResultReasonObjectDestroyed) }

// taken reports whether err is the refusal of a name; a lagging server might accept the name.
func taken(err error) bool {
	return reasonIs(err, kmip20.ResultReasonNonUniqueNameAttribute, kmip20.ResultReasonObjectAlreadyExists)
}

// failure returns the meaning of an error on a server.
func (c *cluster) failure(s *server, a attempt, err error) *Error {
	if err == nil {
		return nil
	}
	e := &Error{Server: s.address, Operation: operationOf(err, a.operation), Reason: err.Error(), Err: err}
	_, e.suspect = errors.AsType[*openError](err)
	_, e.lost = errors.AsType[*lostError](err)
	e.suspect = e.suspect || e.lost
	e.final = ended(err) || taken(err)
	e.Kind = kind(err)
	if errors.Is(e.Kind, errHost) {
		e.final = true
	}
	if errors.Is(err, wire.ErrMalformed) {
		// The operation may be done although the answer is unreadable. The server answers and so
		// is not suspect: one odd key must not take the whole KMS away.
		e.lost = true
	}
	e.Reason = strings.TrimPrefix(strings.TrimPrefix(e.Reason, e.Kind.Error()), ": ")
	return e
}

// kind returns the sentinel of package keys for an error's meaning, or errHost.
func kind(err error) error {
	for _, kind := range []error{keys.ErrWrongKey, keys.ErrKeyLength, keys.ErrKeyState} {
		if errors.Is(err, kind) {
			return kind
		}
	}
	if answered, ok := errors.AsType[*result](err); ok {
		return answered.kind()
	}
	if known, ok := errors.AsType[*classified](err); ok {
		return known.kind
	}
	if _, ok := errors.AsType[*hostError](err); ok {
		return errHost
	}
	return keys.ErrUnreachable
}

// precedence orders the servers' answers to one request: the first of these given by any server
// is the cluster's answer. A wrong key or a refusal concerns one server, or a fault there for a
// person to mend. "Not found" is believed of the cluster only where no answering server says
// anything else. A server that is down says nothing.
var precedence = []error{keys.ErrWrongKey, keys.ErrKeyLength, keys.ErrKeyState, keys.ErrRefused, keys.ErrUnreachable, keys.ErrNotFound}

// rank returns e's place in the precedence: the lower, the more telling.
func (e *Error) rank() int {
	switch at := slices.Index(precedence, e.Kind); {
	case e.final:
		return -1
	case e.suspect:
		return len(precedence) + at
	default:
		return at
	}
}

// missing reports whether e only says that there is no such key.
func (e *Error) missing() bool { return e != nil && e.Kind == keys.ErrNotFound }

// join makes one error of several servers' errors: the best one, with the words of each.
func join(failures []*Error) *Error {
	switch len(failures) {
	case 0:
		return nil
	case 1:
		return failures[0]
	}
	best := slices.MinFunc(failures, func(a, b *Error) int { return cmp.Compare(a.rank(), b.rank()) })
	var reasons []string
	for _, f := range failures {
		reasons = append(reasons, f.Server+": "+f.Reason)
	}
	// Only the best error is wrapped: a "not found" of other servers is not the answer.
	return &Error{Operation: best.Operation, Kind: best.Kind, Reason: strings.Join(reasons, "; "), Err: best, final: best.final}
}
