package keys

import (
	"context"
	"time"
)

// watchEvery is how often servers are asked whether they answer.
const watchEvery = time.Minute

// A watched is a provider that can ask its servers, all of them, how they are.
type watched interface {
	AskServers(ctx context.Context)
}

// Watch has the servers of every provider asked now and then once a minute whether they
// answer, until Close: so a dead one is known before it is needed. It is for programs
// that live long; call it once.
func (c *Cache) Watch() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed {
		c.wg.Go(c.watchLoop)
	}
}

func (c *Cache) watchLoop() {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		for _, p := range c.Providers() {
			if p, ok := p.(watched); ok {
				c.wg.Go(func() { p.AskServers(c.ctx) })
			}
		}
		select {
		case <-c.ctx.Done():
			return
		case <-tick.C:
		}
	}
}
