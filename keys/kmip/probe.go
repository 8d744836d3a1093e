package kmip

import (
	"context"
	"sync"
	"time"

	"vmcryptfs/keys/kmip/wire"
)

const (
	firstProbe = 200 * time.Millisecond // after a server failed
	lastProbe  = 2 * time.Second        // limit of the growing pause between probes
)

// ask asks every server not asked for idleTime whether the server answers, all side by side. The
// server's idle sessions have ended by then, so each question goes over a fresh session. Suspects
// have probes of their own.
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

// probe asks a suspect server now and then until the server answers.
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
