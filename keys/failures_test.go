package keys

import (
	"errors"
	"fmt"
	"testing"
	"time"
)

func TestFailuresScope(t *testing.T) {
	now := time.Now()
	check, other := [16]byte{1}, [16]byte{2}
	asked := Ref{Provider: "corp", ID: "a", Check: &check}
	for _, c := range []struct {
		err                                             error
		aboutKey                                        bool
		same, otherCheck, noCheck, otherID, otherServer bool // refs with the failure remembered
	}{
		{ErrUnreachable, false, true, true, true, true, false},
		{ErrUnreachable, true, true, true, true, false, false},
		{ErrNotFound, false, true, true, true, false, false},
		{ErrRefused, false, true, true, true, false, false},
		{ErrKeyState, false, true, true, true, false, false},
		{ErrKeyLength, false, true, true, true, false, false},
		{ErrWrongKey, false, true, false, false, false, false},
		{errors.New("of this host"), false, false, false, false, false, false},
	} {
		m := make(failures)
		m.remember(asked, fmt.Errorf("asked: %w", c.err), c.aboutKey, now)
		for _, r := range []struct {
			name string
			ref  Ref
			want bool
		}{
			{"same", asked, c.same},
			{"other check value", Ref{Provider: "corp", ID: "a", Check: &other}, c.otherCheck},
			{"no check value", Ref{Provider: "corp", ID: "a"}, c.noCheck},
			{"other key", Ref{Provider: "corp", ID: "b", Check: &check}, c.otherID},
			{"other provider", Ref{Provider: "escrow", ID: "a", Check: &check}, c.otherServer},
		} {
			if err := m.recall(r.ref, now); (err != nil) != r.want || err != nil && !errors.Is(err, c.err) {
				t.Errorf("%v, %s: recalled %v, want any %v", c.err, r.name, err, r.want)
			}
		}
		if err := m.recall(asked, now.Add(10*time.Second)); err != nil || len(m) > 0 {
			t.Errorf("%v: still %v after 10 s, %d remembered", c.err, err, len(m))
		}
	}
}

// Invented identifiers cost bounded memory, and the newest failure is remembered.
func TestFailuresBounded(t *testing.T) {
	m := make(failures)
	now := time.Now()
	for i := range 10 * maxFailures {
		now = now.Add(time.Millisecond)
		ref := Ref{Provider: "corp", ID: fmt.Sprint(i)}
		m.remember(ref, ErrNotFound, true, now)
		if len(m) > maxFailures {
			t.Fatalf("%d failures remembered", len(m))
		}
		if m.recall(ref, now) == nil {
			t.Fatalf("failure %d not remembered", i)
		}
	}
}

func TestReasonsAreApart(t *testing.T) {
	reasons := []error{ErrLocked, ErrNotFound, ErrUnreachable, ErrRefused, ErrKeyState, ErrWrongKey, ErrNoProvider}
	for i, a := range reasons {
		for j, b := range reasons {
			if errors.Is(a, b) != (i == j) {
				t.Errorf("errors.Is(%v, %v) = %v", a, b, i != j)
			}
		}
		if !errors.Is(a, ErrNoKey) || errors.Is(ErrNoKey, a) {
			t.Errorf("%v is no ErrNoKey, or ErrNoKey is it", a)
		}
	}
	for _, e := range []error{ErrTampered, ErrSeal, ErrKeyLength} {
		if errors.Is(e, ErrNoKey) {
			t.Errorf("%v is an ErrNoKey", e)
		}
	}
}
