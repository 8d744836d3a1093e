package kmip

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"vmcryptfs/keys"
)

// agree asks all servers for a key at once, before a datastore depends on the key, and returns
// the key's check value. Until then no check value is known to tell the right key by. Two servers
// with different keys give keys.ErrServersDiffer. A server without the key is left out, since a
// new key may not have reached that server yet. known is the check value of a key already given
// by one server, or nil.
func (p *Provider) agree(ctx context.Context, id string, known *[16]byte) (check [16]byte, err error) {
	now := p.cluster()
	if known != nil && len(now.servers) == 1 {
		return *known, nil // the server gave that key
	}
	given := make([]*[16]byte, len(now.servers))
	failures := make([]*Error, len(now.servers))
	var asking sync.WaitGroup
	for i, s := range now.servers {
		asking.Go(func() { given[i], failures[i] = p.checkValue(ctx, now, s, id) })
	}
	asking.Wait()
	if errors.Is(ctx.Err(), context.Canceled) { // a server cut off in its answer may differ
		return check, ctx.Err()
	}
	sides := make(map[[16]byte][]string) // addresses of servers, by the key given
	if known != nil {
		sides[*known] = nil
	}
	for i, value := range given {
		if value != nil {
			sides[*value] = append(sides[*value], now.servers[i].address)
		}
	}
	switch len(sides) {
	case 0:
		return check, join(failures)
	case 1:
		for check = range sides {
		}
		return check, nil
	}
	return check, fmt.Errorf("%w: %s", keys.ErrServersDiffer, against(sides))
}

// against names the servers of each side.
func against(sides map[[16]byte][]string) string {
	var names []string
	for _, addresses := range sides {
		if len(addresses) > 0 { // else the side is the server that gave known before
			names = append(names, strings.Join(addresses, ", "))
		}
	}
	slices.Sort(names)
	return strings.Join(names, " against ")
}

// checkValue asks one server for a key, unless the server is known not to answer.
func (p *Provider) checkValue(ctx context.Context, c *cluster, s *server, id string) (check *[16]byte, failure *Error) {
	if s.suspect() {
		return nil, s.silent("Get")
	}
	err := s.use(ctx, true, func(ctx context.Context, s *session) error {
		kek, _, err := p.fetch(ctx, s, id)
		if err != nil {
			return err
		}
		defer kek.Wipe()
		value := kek.CheckValue()
		check = &value
		return nil
	})
	failure = c.failure(s, attempt{operation: "Get", key: id}, err)
	if failure != nil && failure.suspect && ctx.Err() == nil {
		c.suspect(s, failure.Reason)
	}
	return check, failure
}
