package kmip

import (
	"context"
	"sync"
	"time"

	"vmcryptfs/keys/kmip/wire"
)

const (
	firstProbe = 200 * time.Millisecond // after a server failed
	lastProbe  = 2 * time.Second        // the pause between probes grows up to this
)

// ask asks every server whether it answers, side by side, that nobody asked since its idle
// sessions have ended: so each is asked on a fresh one. Suspects have their probes.
func (c *cluster) ask(ctx context.Context) {
	var asking sync.WaitGroup
	for _, s := range c.servers {
		if s.suspect() || time.Since(s.lastChecked()) < idleTime {
			continue
		}
		asking.Go(func() {
			c.on(ctx, s, attempt{operation: "Get Attributes", idempotent: true,
				do: func(ctx context.Context, s *session) error { return s.answers(ctx) }})
		})
	}
	asking.Wait()
}

// probe asks a suspect server now and then until it answers.
func (c *cluster) probe(s *server) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return
	}
	c.probes.Go(func() {
		pause := time.NewTimer(firstProbe)
		defer pause.Stop()
		for wait := firstProbe; ; wait = min(2*wait, lastProbe) {
			pause.Reset(wait)
			select {
			case <-c.ctx.Done():
				return
			case <-pause.C:
			}
			var version wire.Version
			err := s.use(c.ctx, true, func(ctx context.Context, session *session) error {
				version = session.version
				return session.answers(ctx)
			})
			if c.ctx.Err() != nil {
				return
			}
			if err != nil {
				s.failing(err.Error(), true)
			} else {
				s.well(version)
				c.log.Info("KMS server answers again", "provider", c.config.Name, "server", s.address)
				return
			}
		}
	})
}
