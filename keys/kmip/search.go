package kmip

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"vmcryptfs/keys"
)

const (
	// mostFound bounds the keys examined by a search: a server that ignores the name in Locate
	// returns any of its keys, other clients' too, the newest first.
	mostFound = 32
	// clockSkew is how far the KMS's clock may be behind this host's. With a greater difference,
	// a key of this host is taken for another host's, and a second key is made.
	clockSkew = 5 * time.Minute
)

// A search is for keys of one Name. The answer to Locate is not believed: a key is found when the
// key's own attributes match.
type search struct {
	name  string
	since time.Time // for a key just made: no older than this; zero: any age
}

// An unsureError reports that a search found nothing and has not seen all keys.
type unsureError struct{ reason string }

func (u *unsureError) Error() string { return u.reason }

// halfway returns when a search of many keys stops: a server slow to describe all keys must not
// be taken for a server without an answer, and the next server needs time too.
func halfway(ctx context.Context) time.Time {
	end, _ := ctx.Deadline() // server.use sets one
	return time.Now().Add(time.Until(end) / 2)
}

// on searches on one server; a server without such a key gives keys.ErrNotFound.
func (q search) on(ctx context.Context, s *session) (ids []string, err error) {
	listed, err := s.locate(ctx, q.name, mostFound)
	if err != nil {
		return nil, err
	}
	var unseen error
	if len(listed) >= mostFound {
		unseen = &unsureError{fmt.Sprintf("it lists %d keys and more, none of them of the name %q: does it look at the name?", mostFound, q.name)}
	}
	enough, cut := halfway(ctx), false
	slices.Sort(listed)
	for _, id := range slices.Compact(listed) {
		if cut = time.Now().After(enough); cut {
			unseen = &unsureError{fmt.Sprintf("it is too slow to tell the names of all %d keys that it lists for the name %q", len(listed), q.name)}
			break
		}
		found, doubt, err := q.is(ctx, s, id)
		if err != nil {
			return nil, err
		}
		if doubt != nil {
			unseen = doubt
		}
		if found {
			ids = append(ids, id)
		}
	}
	if unseen != nil && (len(ids) == 0 || cut && !q.since.IsZero()) { // of a key just made there is one
		return nil, &classified{keys.ErrRefused, unseen}
	}
	if len(ids) == 0 {
		return nil, &classified{keys.ErrNotFound, fmt.Errorf("no key of the name %q", q.name)}
	}
	return ids, nil
}

// is reports whether a key listed by a server is searched for, by the key's own attributes. doubt
// says why the answer is unknown, or why a key of the Name does not match.
func (q search) is(ctx context.Context, s *session, id string) (found bool, doubt, err error) {
	a, err := s.getAttributes(ctx, id)
	if answer, ok := errors.AsType[*result](err); ok {
		if !errors.Is(answer.kind(), keys.ErrNotFound) {
			doubt = &unsureError{fmt.Sprintf("it does not tell the name of a key that it lists for the name %q: %v", q.name, err)}
		}
		return false, doubt, nil
	}
	if err != nil || !slices.Contains(a.names, q.name) {
		return false, nil, err
	}
	if err := q.refuse(a); err != nil {
		return false, fmt.Errorf("%w: %w", keys.ErrNameTaken, err), nil
	}
	return true, nil, nil
}

// refuse returns why a key of the Name does not match the search.
func (q search) refuse(a attributes) error {
	if err := a.check(); err != nil || q.since.IsZero() {
		return err
	}
	if a.state != keys.PreActive && a.state != keys.Active {
		return fmt.Errorf("%w: it is %s", keys.ErrKeyState, a.state)
	}
	if made := a.dates[initialDate]; made.Before(q.since.Add(-clockSkew)) {
		return fmt.Errorf("it was made at %s, before it was asked for", date(made))
	}
	return nil
}

// find searches on every reachable server until one has the key; keys.ErrNotFound: none has.
// maker is the address of a server that may have made the key just now; that server is asked
// first although its last request failed, since the others may lag. Empty: none.
func (p *Provider) find(ctx context.Context, q search, maker string) (ids []string, err error) {
	err = p.cluster().tryFrom(ctx, maker, attempt{"Locate", "", true, func(ctx context.Context, s *session) error {
		ids, err = q.on(ctx, s)
		return err
	}})
	return ids, err
}

// findNew returns the identifier of the key just made under a name, empty if none was made.
func (p *Provider) findNew(ctx context.Context, q search, maker string) (id string, err error) {
	ids, err := p.find(ctx, q, maker)
	switch {
	case errors.Is(err, keys.ErrNotFound):
		return "", nil
	case err != nil:
		return "", err
	case len(ids) > 1:
		return "", fmt.Errorf("%w: %d keys have the name %q", keys.ErrNameTaken, len(ids), q.name)
	}
	return ids[0], nil
}

// Find returns the identifiers of the AES keys of 256 bits with this Name: none if no reachable
// server has such a key visible to this client.
func (p *Provider) Find(ctx context.Context, name string) (ids []string, err error) {
	ids, err = p.find(ctx, search{name: name}, "")
	_, unsure := errors.AsType[*unsureError](err)
	switch {
	case unsure, errors.Is(err, keys.ErrNotFound), errors.Is(err, keys.ErrNameTaken):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("provider %s: key %q: %w", p.Name(), name, err)
	}
	return ids, nil
}
