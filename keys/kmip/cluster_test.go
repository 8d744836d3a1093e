package kmip_test

import (
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	ovh "github.com/ovh/kmip-go"

	"vmcryptfs/keys"
)

// TestServerDown: one server refuses connections.
func TestServerDown(t *testing.T) {
	t.Parallel()
	p, first, second, provider := foreignPair(t)
	kek := create(t, provider)
	first.stop()
	awaitKey(t, provider, kek) // the provider's idle session is dead too
	if first.accepted.Load() == 0 || second.accepted.Load() == 0 {
		t.Error("not both servers were used")
	}
	health := provider.Health()
	if health[0].OK || health[0].LastError == "" || !health[1].OK {
		t.Errorf("health %+v", health)
	}
	first.start(t, p, first.address)
	awaitHealth(t, provider.Health, 0)
	second.stop()
	got, _, err := provider.Get(t.Context(), kek.ID, nil)
	if err != nil {
		t.Fatalf("get from the server that came back: %v", err)
	}
	got.Wipe()
}

// awaitHealth returns when a server is seen to be well without being used.
func awaitHealth(t *testing.T, health func() []keys.ServerHealth, i int) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	late := time.After(patience)
	for !health()[i].OK {
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("not seen to be back: %+v", health()[i])
		}
	}
}

// TestAllDown: with every server known to be down, a request fails without asking.
func TestAllDown(t *testing.T) {
	t.Parallel()
	p, first, second, provider := foreignPairWithin(t, hungTimeout)
	kek := create(t, open(t, p.config(t, first.address))) // without the short timeout
	for _, f := range []*foreign{first, second} {
		f.deaf.Store(true)
		f.trouble.Store(&trouble{ovh.OperationGet, hangs})
	}
	begin := time.Now()
	if _, _, err := provider.Get(t.Context(), kek.ID, nil); !errors.Is(err, keys.ErrUnreachable) {
		t.Fatalf("get: %v, want %v", err, keys.ErrUnreachable)
	}
	if took := time.Since(begin); took > 2*hungTimeout {
		t.Errorf("the first discovery took %v", took)
	}
	before := first.accepted.Load() + second.accepted.Load()
	const n = 1000
	for range n {
		if _, _, err := provider.Get(t.Context(), kek.ID, nil); !errors.Is(err, keys.ErrUnreachable) {
			t.Fatalf("get: %v, want %v", err, keys.ErrUnreachable)
		}
	}
	if asked := first.accepted.Load() + second.accepted.Load() - before; asked > n/10 {
		t.Errorf("%d requests to a cluster that is down made %d connections", n, asked)
	}
	first.deaf.Store(false)
	first.trouble.Store(nil)
	awaitKey(t, provider, kek)
}

// TestReplicationLag: a key just made on one server is not yet on the other.
func TestReplicationLag(t *testing.T) {
	t.Parallel()
	_, first, second, provider := foreignPair(t)
	kek := create(t, provider)
	first.lags.Store(true)
	awaitKey(t, provider, kek)
	second.lags.Store(true)
	if _, _, err := provider.Get(t.Context(), kek.ID, nil); !errors.Is(err, keys.ErrNotFound) {
		t.Errorf("get where both say not found: %v, want %v", err, keys.ErrNotFound)
	}
	second.stop()
	for range 2 { // in the second round the other server is known to be down
		if _, _, err := provider.Get(t.Context(), kek.ID, nil); !errors.Is(err, keys.ErrNotFound) {
			t.Errorf("get where the one that can be reached says not found: %v, want %v", err, keys.ErrNotFound)
		}
	}
}

// TestNotFoundInDoubt: one server does not have the key, and the other answers without saying so.
func TestNotFoundInDoubt(t *testing.T) {
	t.Parallel()
	_, first, second, provider := foreignPair(t)
	kek := create(t, provider)
	first.lags.Store(true)
	second.trouble.Store(&trouble{ovh.OperationGetAttributes, writes(garbageWithin)})
	if _, err := provider.State(t.Context(), kek.ID); !errors.Is(err, keys.ErrUnreachable) || errors.Is(err, keys.ErrNotFound) {
		t.Errorf("state: %v, want %v", err, keys.ErrUnreachable)
	}
	second.trouble.Store(nil)
	wantState(t, provider, kek.ID, keys.Active)
}

// TestLostCreate: the server makes the key, and the answer is lost. There must be one key, and
// the caller gets the key.
func TestLostCreate(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(*foreign, net.Conn, []byte) error{
		"closes": closesAtOnce, "hangs": hangs, "garbage": writes(garbageWithin), "other operation": writes(otherOperation),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, first, _, provider := foreignPairWithin(t, 4*hungTimeout)
			first.trouble.Store(&trouble{ovh.OperationCreate, spoil})
			label := label()
			kek, err := provider.Create(t.Context(), label)
			if err != nil {
				t.Fatal(err)
			}
			defer kek.Wipe()
			if n := first.vault.named(label); n != 1 {
				t.Errorf("%d keys of that name, want 1", n)
			}
			wantState(t, provider, kek.ID, keys.Active)
		})
	}
}

// TestLostCreateAsksTheMaker: the server with the lost answer is the one to ask, although it has
// just failed: another may lag, or there is no other.
func TestLostCreateAsksTheMaker(t *testing.T) {
	t.Parallel()
	for _, servers := range []int{1, 2} {
		t.Run(fmt.Sprint("of ", servers), func(t *testing.T) {
			t.Parallel()
			p := newPKI(t)
			first := newForeign(t, p, newVault())
			lagging := newForeign(t, p, first.vault)
			lagging.lags.Store(true)
			first.trouble.Store(&trouble{ovh.OperationCreate, closesAtOnce})
			provider := open(t, p.config(t, []string{first.address, lagging.address}[:servers]...))
			label := label()
			kek, err := provider.Create(t.Context(), label)
			if err != nil {
				t.Error(err)
			}
			kek.Wipe()
			if n := first.vault.named(label); n != 1 {
				t.Errorf("%d keys of that name, want 1", n)
			}
		})
	}
}

// TestLostActivate: the key is active, and the answer to Activate is lost.
func TestLostActivate(t *testing.T) {
	t.Parallel()
	_, first, _, provider := foreignPair(t)
	first.trouble.Store(&trouble{ovh.OperationActivate, closesAtOnce})
	wantState(t, provider, create(t, provider).ID, keys.Active)
}

// TestNotRepeated: a request with an effect is sent once.
func TestNotRepeated(t *testing.T) {
	t.Parallel()
	p, first, second, provider := foreignPair(t)
	kek := create(t, open(t, p.config(t, first.address))) // a provider of both servers would ask the other server, too
	if err := provider.Revoke(t.Context(), kek.ID, 1); err != nil {
		t.Fatal(err)
	}
	first.trouble.Store(&trouble{ovh.OperationDestroy, closesAtOnce})
	if err := provider.Destroy(t.Context(), kek.ID); !errors.Is(err, keys.ErrUnreachable) {
		t.Errorf("destroy with a lost answer: %v, want %v", err, keys.ErrUnreachable)
	}
	if n := second.accepted.Load(); n != 0 {
		t.Errorf("the other server was asked too, %d times", n)
	}
	wantState(t, provider, kek.ID, keys.Destroyed)
}

// TestDeadSession: an idle session breaks at the next use. An idempotent request goes to the same
// server once more, on a fresh session.
func TestDeadSession(t *testing.T) {
	t.Parallel()
	p, first, second, provider := foreignPair(t)
	kek := create(t, open(t, p.config(t, first.address)))
	awaitKey(t, provider, kek)
	before := first.accepted.Load()
	first.trouble.Store(&trouble{ovh.OperationGet, once(closesAtOnce)})
	awaitKey(t, provider, kek)
	if n := first.accepted.Load() - before; n != 1 {
		t.Errorf("%d fresh sessions, want 1", n)
	}
	if n := second.accepted.Load(); n != 0 {
		t.Errorf("the other server was asked, %d times", n)
	}
}

// TestIdleSessions: requests one after the other share a session.
func TestIdleSessions(t *testing.T) {
	t.Parallel()
	p, first, _, provider := foreignPair(t)
	kek := create(t, provider)
	for range 20 {
		awaitKey(t, provider, kek)
	}
	if n := first.accepted.Load(); n != 1 {
		t.Errorf("%d sessions, want 1", n)
	}
	// A restarted server has closed the session: that is noticed before the session's use.
	address := first.address
	first.stop()
	first.start(t, p, address)
	got, _, err := provider.Get(t.Context(), kek.ID, nil)
	if err != nil {
		t.Fatal(err)
	}
	got.Wipe()
	if n := first.accepted.Load(); n != 2 {
		t.Errorf("%d sessions, want 2", n)
	}
}

// TestManyAtOnce: however many requests there are, a server sees few sessions.
func TestManyAtOnce(t *testing.T) {
	t.Parallel()
	_, first, _, provider := foreignPair(t)
	kek := create(t, provider)
	const n = 100
	failures := make(chan error, n)
	for range n {
		go func() {
			got, _, err := provider.Get(t.Context(), kek.ID, nil)
			if err == nil {
				got.Wipe()
			}
			failures <- err
		}()
	}
	for range n {
		if err := <-failures; err != nil {
			t.Error(err)
		}
	}
	// A closed session may be counted until the server notices.
	first.mu.Lock()
	defer first.mu.Unlock()
	if most := first.most; most < 2 || most > 2*4 {
		t.Errorf("%d sessions at the same time", most)
	}
}

// TestPyKMIPPair: two PyKMIP servers on one database as a replica pair; one hangs by
// SIGSTOP.
func TestPyKMIPPair(t *testing.T) {
	t.Parallel()
	p := newPKI(t)
	database := filepath.Join(t.TempDir(), "pykmip.db")
	first, second := launchPyKMIP(t, p, database), launchPyKMIP(t, p, database)
	config := p.config(t, first.address, second.address)
	config.Timeout = 30 * time.Second // the requests are slow on a busy machine
	const hung = 12 * time.Second     // the cost of a hanging server then
	provider := open(t, config)
	kek := create(t, provider)

	signal(t, first, syscall.SIGSTOP)
	begin := time.Now()
	got, _, err := provider.Get(t.Context(), kek.ID, nil)
	if err != nil {
		t.Fatalf("get while one server hangs: %v", err)
	}
	got.Wipe()
	if took := time.Since(begin); took < hung || took > config.Timeout {
		t.Errorf("a hung server cost %v, want %v and little more", took, hung)
	}
	begin = time.Now()
	awaitKey(t, provider, kek)
	if took := time.Since(begin); took >= hung {
		t.Errorf("the hung server was asked first again: %v", took)
	}

	signal(t, second, syscall.SIGSTOP)
	if _, _, err := provider.Get(t.Context(), kek.ID, nil); !errors.Is(err, keys.ErrUnreachable) {
		t.Errorf("get while both hang: %v, want %v", err, keys.ErrUnreachable)
	}
	signal(t, first, syscall.SIGCONT)
	awaitKey(t, provider, kek)
	signal(t, second, syscall.SIGCONT)
	awaitHealth(t, provider.Health, 1)
}

func signal(t *testing.T, p *pykmip, s syscall.Signal) {
	t.Helper()
	if err := p.process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

// TestBusyIsNotSuspect: requests waiting in vain for a session, since all are in use, do not make
// a server suspect that answers every other request.
func TestBusyIsNotSuspect(t *testing.T) {
	t.Parallel()
	p := newPKI(t)
	f := newForeign(t, p, newVault())
	config := p.config(t, f.address)
	kek := create(t, open(t, config))
	config.Timeout = 2 * hungTimeout // 4 s for a server
	provider := open(t, config)
	// A slow answer, but within the time allowed.
	f.trouble.Store(&trouble{ovh.OperationGet, answersAfter(2 * time.Second)})
	const n = 40 // 4 at a time
	failures := make(chan error, n)
	for range n {
		go func() {
			got, _, err := provider.Get(t.Context(), kek.ID, nil)
			got.Wipe()
			failures <- err
		}()
	}
	failed := 0
	for range n {
		if err := <-failures; err != nil {
			failed++
			if !errors.Is(err, keys.ErrUnreachable) {
				t.Errorf("%v, want %v", err, keys.ErrUnreachable)
			}
		}
	}
	if failed == 0 || failed > n-4 {
		t.Errorf("%d of %d requests failed, want some, and at least those who came first served", failed, n)
	}
	if h := provider.Health()[0]; !h.OK {
		t.Errorf("suspect: %+v", h)
	}
}
