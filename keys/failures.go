package keys

import (
	"errors"
	"time"
)

const (
	// unreachableFor is how long a provider without an answer is left alone: long enough for
	// 1,000 opens not to wait for the provider's timeout each, short enough for files to open
	// again within 10 s of the provider's return, whatever the timeout is.
	unreachableFor = 2 * time.Second
	// refusedFor is the same for a definite answer about one KEK.
	refusedFor = 5 * time.Second
	// maxFailures bounds the memory taken by headers full of invented identifiers: at most 320
	// bytes of names each.
	maxFailures = 1024
)

// failures remembers failed look-ups. Guarded by Cache.mu.
type failures map[lookup]failure

// lookup is a failed request: to a whole provider (no id), for one KEK, or (wrong) for one KEK
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

// wrongFor is the look-up for which every KEK of ref's name at the provider was wrong. The KEK
// may be right for a ref with another check value. Refs without a check value share a look-up.
func wrongFor(ref Ref) lookup {
	l := lookup{name: ref.name(), wrong: true}
	if ref.Check != nil {
		l.check = *ref.Check
	}
	return l
}

// recall returns the error of a look-up sure to fail again now, or nil.
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

// remember records the failure err of ref, if asking again soon would be useless. aboutKey means:
// the provider fails to answer for ref's key alone.
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
		return // a fault of this host, not of the key: no memory, or the program ends
	}
	if len(m) >= maxFailures {
		m.makeRoom(now)
	}
	m[l] = failure{err: err, until: now.Add(d)}
}

// makeRoom forgets expired failures or, if none has expired, any one.
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
