package keys

import (
	"errors"
	"time"
)

const (
	// unreachableFor is how long a provider that did not answer is left alone: long
	// enough that 1,000 opens do not each wait for its timeout, short enough that
	// files open again within 10 s of its return, whatever that timeout is.
	unreachableFor = 2 * time.Second
	// refusedFor is the same for a definite answer about one KEK.
	refusedFor = 5 * time.Second
	// maxFailures bounds the memory that headers full of invented identifiers cost:
	// at most 320 bytes of names each.
	maxFailures = 1024
)

// failures remembers look-ups that failed. Guarded by Cache.mu.
type failures map[lookup]failure

// lookup is what failed: a whole provider (no id), one KEK of it, or (wrong) one KEK
// with one check value.
type lookup struct {
	name
	wrong bool
	check [16]byte
}

type failure struct {
	err   error
	until time.Time
}

// wrongFor is that every KEK which a provider has under ref's name is wrong for ref: one
// with another check value may be right. Refs without one share a look-up.
func wrongFor(ref Ref) lookup {
	l := lookup{name: ref.name(), wrong: true}
	if ref.Check != nil {
		l.check = *ref.Check
	}
	return l
}

// recall gives the error of a look-up that would fail again, or nil.
func (m failures) recall(ref Ref, now time.Time) error {
	for _, l := range []lookup{{name: name{provider: ref.Provider}}, {name: ref.name()}, wrongFor(ref)} {
		if f, ok := m[l]; ok {
			if now.Before(f.until) {
				return f.err
			}
			delete(m, l)
		}
	}
	return nil
}

// remember notes that ref failed with err, if asking again soon would be no use. aboutKey
// tells that it is ref's key alone for which its provider does not answer.
func (m failures) remember(ref Ref, err error, aboutKey bool, now time.Time) {
	l, d := lookup{name: ref.name()}, refusedFor
	switch {
	case errors.Is(err, ErrUnreachable) && aboutKey:
		d = unreachableFor
	case errors.Is(err, ErrUnreachable):
		l, d = lookup{name: name{provider: ref.Provider}}, unreachableFor
	case errors.Is(err, ErrWrongKey):
		l = wrongFor(ref)
	case errors.Is(err, ErrNoKey), errors.Is(err, ErrKeyLength):
	default:
		return // of this host, not of the key: no memory, the program ends
	}
	if len(m) >= maxFailures {
		m.makeRoom(now)
	}
	m[l] = failure{err: err, until: now.Add(d)}
}

// makeRoom forgets what has passed or, if nothing has, any one.
func (m failures) makeRoom(now time.Time) {
	for l, f := range m {
		if !now.Before(f.until) {
			delete(m, l)
		}
	}
	for l := range m {
		if len(m) < maxFailures {
			return
		}
		delete(m, l)
	}
}
