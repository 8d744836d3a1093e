package kmip_test

import (
	"fmt"
	"net"
	"sync"
	"testing"

	"vmcryptfs/keys"
	"vmcryptfs/keys/kmip"
)

// TestFewConnections: a server that takes few connections, and refuses more in whatever
// way, serves as many requests for as many keys as there are, and is well.
func TestFewConnections(t *testing.T) {
	t.Parallel()
	for name, beyond := range map[string]func(net.Conn){
		"closes": func(c net.Conn) { c.Close() },
		"resets": func(c net.Conn) { _ = c.(*net.TCPConn).SetLinger(0); c.Close() },
		"silent": func(net.Conn) {},
		"closes later": func(c net.Conn) {
			_, _ = c.Read(make([]byte, 1)) // into the handshake
			c.Close()
		},
	} {
		for _, n := range []int{1, 3, 6} {
			t.Run(fmt.Sprintf("%s beyond %d", name, n), func(t *testing.T) {
				t.Parallel()
				p := newPKI(t)
				f := newForeign(t, p, newVault())
				maker := open(t, p.config(t, f.address))
				var all []*keys.KEK
				for range 12 {
					all = append(all, create(t, maker))
				}
				maker.Close()
				await(t, "the end of the maker's sessions", nil, func() bool {
					f.mu.Lock()
					defer f.mu.Unlock()
					return f.serving == 0
				})
				f.mu.Lock()
				f.limit, f.beyond = n, beyond
				f.mu.Unlock()
				config := p.config(t, f.address)
				config.Sessions = 8
				provider, log := openLogged(t, config)
				getAll(t, provider, all)
				if h := provider.Health()[0]; h.State != keys.ServerOK || log.count("does not serve") > 0 {
					t.Errorf("%+v, want %s", h, keys.ServerOK)
				}
			})
		}
	}
}

// getAll gets each key several times, all at once.
func getAll(t *testing.T, p *kmip.Provider, all []*keys.KEK) {
	t.Helper()
	var running sync.WaitGroup
	for range 3 {
		for _, want := range all {
			running.Go(func() {
				got, err := p.Get(t.Context(), want.ID, nil)
				if err != nil {
					t.Error(err)
					return
				}
				got.Wipe()
			})
		}
	}
	running.Wait()
}
