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

// A stateError says that a key's state forbids what was asked for.
type stateError struct {
	state keys.State
	cause error // what the server said to the request; may be nil
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

// ended tells that a server said of a key that it is destroyed, by its state or as the
// reason of a refusal: no other server can know better, for no key comes back from that.
func ended(err error) bool {
	if s, ok := errors.AsType[*stateError](err); ok && (s.state == keys.Destroyed || s.state == keys.DestroyedCompromised) {
		return true
	}
	return destroyed(err)
}

// A hostError is a failure of this host with what a server gave.
type hostError struct{ err error }

func (h *hostError) Error() string { return h.err.Error() }
func (h *hostError) Unwrap() error { return h.err }

var errHost = errors.New("this host cannot use the answer")

// destroyed tells a refusal because the key is destroyed.
func destroyed(err error) bool { return reasonIs(err, kmip20.ResultReasonObjectDestroyed) }

// taken tells a refusal because of a name that another server, which lags, might take.
func taken(err error) bool {
	return reasonIs(err, kmip20.ResultReasonNonUniqueNameAttribute, kmip20.ResultReasonObjectAlreadyExists)
}

// failure says what an error on a server means.
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
		// It may have done what it cannot talk about. It answers, so it is not suspect:
		// one odd key must not take the whole KMS away.
		e.lost = true
	}
	e.Reason = strings.TrimPrefix(strings.TrimPrefix(e.Reason, e.Kind.Error()), ": ")
	return e
}

// kind is the sentinel of package keys that says what an error means, or errHost.
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

// precedence orders what servers answer to one request. The first of these that one of
// them says is what the cluster says. A wrong key or a refusal is about one server, or about
// what a person has to put right there; that a key is missing is believed of the cluster
// only where no server that answers says anything else; one that is down says nothing.
var precedence = []error{keys.ErrWrongKey, keys.ErrKeyLength, keys.ErrKeyState, keys.ErrRefused, keys.ErrUnreachable, keys.ErrNotFound}

// rank is e's place in the precedence: the lower, the more it tells.
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

// missing tells that all it says is that there is no such key.
func (e *Error) missing() bool { return e != nil && e.Kind == keys.ErrNotFound }

// join makes one error of those of several servers: the best of them, with what each said.
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
	// It wraps the best alone: that the others may have said "not found" is not the answer.
	return &Error{Operation: best.Operation, Kind: best.Kind, Reason: strings.Join(reasons, "; "), Err: best, final: best.final}
}
