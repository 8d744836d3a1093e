package keys

import (
	"context"
	"time"
)

// watchEvery is the time between two rounds of asking servers.
const watchEvery = time.Minute

// A watched is a provider that can ask all of its servers how they are.
type watched interface {
	AskServers(ctx context.Context)
}

// Watch asks the servers of every provider whether they answer, now and then once a minute, until
// Close: so a dead server is known before a need. Watch is for long-lived programs; call Watch
// once.
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
