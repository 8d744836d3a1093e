package kmip_test

import (
	"errors"
	"slices"
	"testing"
	"time"

	ovh "github.com/ovh/kmip-go"

	"vmcryptfs/keys"
	"vmcryptfs/keys/kmip"
)

// BenchmarkFailover measures the cost of an outage for a request, with the default timeouts of
// kms.toml, over two servers on loopback: the median of the iterations in milliseconds. make
// bench-kms runs the benchmark with 20.
func BenchmarkFailover(b *testing.B) {
	for _, c := range []struct {
		name    string
		prepare func(*site)
		measure func(*site)
	}{
		{"no outage", func(*site) {}, (*site).get},
		{"server 1 refuses", (*site).refuse, (*site).get},
		{"server 1 refuses, next request", func(s *site) { s.refuse(); s.get() }, (*site).get},
		{"server 1 hangs", func(s *site) { s.hang(s.first) }, (*site).get},
		{"server 1 hangs, next request", func(s *site) { s.hang(s.first); s.get() }, (*site).get},
		{"both hang", func(s *site) { s.hang(s.first); s.hang(s.second) }, (*site).fail},
		{"both hang, next request", func(s *site) { s.hang(s.first); s.hang(s.second); s.fail() }, (*site).fail},
		{"recovery", func(s *site) { s.hang(s.first); s.hang(s.second); s.fail(); s.heal() }, (*site).await},
	} {
		b.Run(c.name, func(b *testing.B) {
			var took []time.Duration
			for range b.N {
				s := newSite(b)
				c.prepare(s)
				begin := time.Now()
				c.measure(s)
				took = append(took, time.Since(begin))
				s.close()
			}
			slices.Sort(took)
			b.ReportMetric(0, "ns/op") // the mean, with the preparation: not of interest
			b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "ms-median")
			b.ReportMetric(float64(took[len(took)-1].Microseconds())/1000, "ms-most")
		})
	}
}

// A site is two servers, and a client with an idle session to the first one.
type site struct {
	b             *testing.B
	pki           *pki
	first, second *foreign
	provider      *kmip.Provider
	key           *keys.KEK
}

func newSite(b *testing.B) *site {
	s := &site{b: b, pki: newPKI(b)}
	s.first = newForeign(b, s.pki, newVault())
	s.second = newForeign(b, s.pki, s.first.vault)
	config := s.pki.config(b, s.first.address, s.second.address)
	config.Timeout = 0 // the default
	s.provider = open(b, config)
	s.key = create(b, s.provider)
	return s
}

func (s *site) close() {
	s.key.Wipe()
	s.provider.Close()
	s.first.stop()
	s.second.stop()
}

func (s *site) get() {
	k, _, err := s.provider.Get(s.b.Context(), s.key.ID, nil)
	if err != nil {
		s.b.Fatal(err)
	}
	k.Wipe()
}

func (s *site) fail() {
	if _, _, err := s.provider.Get(s.b.Context(), s.key.ID, nil); !errors.Is(err, keys.ErrUnreachable) {
		s.b.Fatal(err)
	}
}

// await asks until the key is there.
func (s *site) await() {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		k, _, err := s.provider.Get(s.b.Context(), s.key.ID, nil)
		if err == nil {
			k.Wipe()
			return
		}
		<-tick.C
	}
}

func (s *site) refuse() { s.first.stop() }

// hang has a server leave open sessions and new connections alone.
func (s *site) hang(f *foreign) {
	f.trouble.Store(&trouble{ovh.OperationGet, hangs})
	f.deaf.Store(true)
}

func (s *site) heal() {
	s.first.trouble.Store(nil)
	s.first.deaf.Store(false)
}
