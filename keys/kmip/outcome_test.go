package kmip

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/gemalto/kmip-go/kmip14"
	"github.com/gemalto/kmip-go/kmip20"

	"vmcryptfs/keys"
	"vmcryptfs/keys/kmip/wire"
)

// TestPrecedence: of any two answers of two servers, in either order, the more telling one is the
// cluster's, and the cluster's text has both.
func TestPrecedence(t *testing.T) {
	t.Parallel()
	failed := func(reason kmip20.ResultReason) error {
		return &result{kmip14.ResultStatusOperationFailed, reason, "words"}
	}
	answers := []struct {
		name string
		err  error
		kind error // of the cluster
	}{ // the most telling first
		{"destroyed", &stateError{state: keys.Destroyed}, keys.ErrKeyState},
		{"another key", fmt.Errorf("%w: its check value is another", keys.ErrWrongKey), keys.ErrWrongKey},
		{"short key", fmt.Errorf("%w: it has 128 bits", keys.ErrKeyLength), keys.ErrKeyLength},
		{"pre-active", &stateError{state: keys.PreActive}, keys.ErrKeyState},
		{"denied", failed(kmip20.ResultReasonPermissionDenied), keys.ErrRefused},
		{"malformed", wire.Malformed("an item"), keys.ErrUnreachable},
		{"missing", failed(kmip20.ResultReasonItemNotFound), keys.ErrNotFound},
		{"refuses the certificate", &openError{&classified{keys.ErrRefused, errors.New("bad certificate")}}, keys.ErrRefused},
		{"down", &openError{&classified{keys.ErrUnreachable, errors.New("connection refused")}}, keys.ErrUnreachable},
	}
	kinds := []error{keys.ErrWrongKey, keys.ErrKeyLength, keys.ErrKeyState, keys.ErrRefused, keys.ErrUnreachable, keys.ErrNotFound}
	c := newCluster(Config{Name: "p", Servers: []string{"kms1:1", "kms2:1"}}, nil, discard())
	defer c.close()
	for i, best := range answers {
		for _, other := range answers[i:] {
			for _, pair := range [][2]error{{best.err, other.err}, {other.err, best.err}} {
				err := join([]*Error{
					c.failure(c.servers[0], attempt{operation: "Get"}, pair[0]),
					c.failure(c.servers[1], attempt{operation: "Get"}, pair[1]),
				})
				for _, kind := range kinds {
					if errors.Is(err, kind) != (kind == best.kind) {
						t.Errorf("%s and %s: %v, want %v alone", best.name, other.name, err, best.kind)
					}
				}
				for _, part := range []string{"kms1:1: ", "kms2:1: "} {
					if !strings.Contains(err.Error(), part) {
						t.Errorf("%s and %s: %q has no %q", best.name, other.name, err, part)
					}
				}
			}
		}
	}
}

// TestDenials: denials are remembered for the latest few keys, until the server gives the key,
// and are news once.
func TestDenials(t *testing.T) {
	t.Parallel()
	var h health
	why := func(reason string) *Error { return &Error{Operation: "Get", Kind: keys.ErrRefused, Reason: reason} }
	for i := range 3 * mostDenials {
		key := fmt.Sprint(i)
		if !h.denied(key, why("no")) {
			t.Errorf("key %s: no news", key)
		}
		if h.denied(key, why("no")) || !h.denied(key, why("not now")) {
			t.Errorf("key %s: only what was not said before is news", key)
		}
	}
	last := fmt.Sprint(3*mostDenials - 1)
	got := h.now("kms:1").KeyErrors
	if len(got) != mostDenials || got[0].Key != last || !strings.Contains(got[0].Error, "not now") {
		t.Errorf("%d denials, the latest %+v", len(got), got[0])
	}
	if h.lastDenied(last).IsZero() || !h.lastDenied("0").IsZero() {
		t.Error("the latest is forgotten, or the first is not")
	}
	h.gave(last)
	if !h.lastDenied(last).IsZero() || len(h.now("kms:1").KeyErrors) != mostDenials-1 {
		t.Error("a key that was given is remembered")
	}
}
