package kmip

import (
	"context"
	"fmt"
	"sync"

	"vmcryptfs/keys"
)

// agree compares the key that each server gives, all asked at once, before a datastore depends on
// it: nothing is known of the key to tell a right one by. Two that differ are
// keys.ErrServersDiffer. A server that gives no key is left out, and nothing is kept of why: a new
// key may not have reached it yet.
func (p *Provider) agree(ctx context.Context, id string) error {
	now := p.cluster()
	if len(now.servers) == 1 {
		return nil
	}
	given := make([]*[16]byte, len(now.servers)) // key check values
	var asking sync.WaitGroup
	for i, s := range now.servers {
		if s.suspect() {
			continue
		}
		asking.Go(func() {
			_ = s.use(ctx, true, func(ctx context.Context, s *session) error {
				kek, _, err := p.fetch(ctx, s, id)
				if err != nil {
					return err
				}
				defer kek.Wipe()
				check := kek.CheckValue()
				given[i] = &check
				return nil
			})
		})
	}
	asking.Wait()
	return now.compare(given)
}

// compare is keys.ErrServersDiffer for two servers that gave different keys, by their check
// values; nil is a server that gave none.
func (c *cluster) compare(given []*[16]byte) error {
	first := -1
	for i, check := range given {
		switch {
		case check == nil:
		case first < 0:
			first = i
		case *check != *given[first]:
			return fmt.Errorf("%w: %s and %s", keys.ErrServersDiffer, c.servers[first].address, c.servers[i].address)
		}
	}
	return nil
}
