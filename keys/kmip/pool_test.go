package kmip_test

import (
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	ovh "github.com/ovh/kmip-go"

	"vmcryptfs/keys"
	"vmcryptfs/keys/kmip"
)

// TestFewConnections: a server that accepts few connections, and refuses more in whatever way,
// serves any number of requests for any number of keys, and is well.
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
			running.Go(func() { getOne(t, p, want) })
		}
	}
	running.Wait()
}

// TestOpeningsKept: when a session becomes idle during the opening of another, the new one is
// kept for the next request: no more connections are made than sessions are allowed.
func TestOpeningsKept(t *testing.T) {
	t.Parallel()
	p := newPKI(t)
	f := newForeign(t, p, newVault())
	// An opening takes longer than a request.
	f.trouble.Store(&trouble{ovh.OperationDiscoverVersions, answersAfter(40 * time.Millisecond)})
	config := p.config(t, f.address)
	config.Sessions = 4
	provider := open(t, config)
	kek := create(t, provider)
	for range 5 {
		getAll(t, provider, []*keys.KEK{kek, kek, kek, kek})
	}
	if n := f.accepted.Load(); n > 4 {
		t.Errorf("%d connections, want 4 at most", n)
	}
}

// TestOpeningEnds: an opening without a waiter does not delay the provider's end.
func TestOpeningEnds(t *testing.T) {
	t.Parallel()
	p := newPKI(t)
	f := newForeign(t, p, newVault())
	maker := open(t, p.config(t, f.address))
	kek := create(t, maker)
	maker.Close()
	config := p.config(t, f.address)
	config.Sessions, config.Timeout = 2, time.Minute // one server's share is 24 s
	provider := open(t, config)
	answers := make(chan struct{})
	f.trouble.Store(&trouble{ovh.OperationGet, waits(answers)})
	var running sync.WaitGroup
	get := func() { getOne(t, provider, kek) }
	running.Go(get)
	<-answers // the first request waits for its own answer
	f.trouble.Store(nil)
	f.deaf.Store(true)
	before := f.accepted.Load()
	running.Go(get)
	await(t, "the second one's connection", nil, func() bool { return f.accepted.Load() > before })
	answers <- struct{}{}
	running.Wait()
	begin := time.Now()
	if err := provider.Close(); err != nil || time.Since(begin) > 12*time.Second {
		t.Errorf("closed after %v: %v", time.Since(begin), err)
	}
}

// TestLostSessionReplaced: the only session allowed by a server is lost over an odd answer.
// Another session replaces the lost one: the waiting request is served, and the server is well.
func TestLostSessionReplaced(t *testing.T) {
	t.Parallel()
	p := newPKI(t)
	f := newForeign(t, p, newVault())
	maker := open(t, p.config(t, f.address))
	odd, good := create(t, maker), create(t, maker)
	maker.Close()
	await(t, "the end of the maker's sessions", nil, func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return f.serving == 0
	})
	refused := make(chan struct{})
	var once, first sync.Once
	f.mu.Lock()
	f.limit, f.beyond = 1, func(c net.Conn) {
		c.Close()
		once.Do(func() { close(refused) })
	}
	f.mu.Unlock()
	asked := make(chan struct{})
	f.trouble.Store(&trouble{ovh.OperationGet, func(f *foreign, conn net.Conn, frame []byte) error {
		first.Do(func() {
			close(asked)
			select {
			case <-refused:
			case <-f.ended:
			}
			frame = garbageWithin(frame)
		})
		_, err := conn.Write(frame)
		return err
	}})
	provider, log := openLogged(t, p.config(t, f.address))
	var running sync.WaitGroup
	running.Go(func() {
		if _, _, err := provider.Get(t.Context(), odd.ID, nil); err == nil {
			t.Error("an odd answer is a key")
		}
	})
	<-asked
	getOne(t, provider, good)
	running.Wait()
	if h := provider.Health()[0]; h.State != keys.ServerOK || log.count("does not serve") > 0 {
		t.Errorf("%+v, want %s", h, keys.ServerOK)
	}
}

// getOne gets a key.
func getOne(t *testing.T, p *kmip.Provider, want *keys.KEK) {
	t.Helper()
	got, _, err := p.Get(t.Context(), want.ID, nil)
	if err != nil {
		t.Error(err)
		return
	}
	got.Wipe()
}
