package kmip_test

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	ovh "github.com/ovh/kmip-go"

	"vmcryptfs/keys"
	"vmcryptfs/keys/kmip"
)

// The tests run beside others on few cores: where nothing hangs, nothing may time out.
const (
	patience    = time.Minute     // the timeout where nothing hangs
	hungTimeout = 5 * time.Second // where something does: 2 s for a server
)

// TestSpoiltAnswers: after any answer of a server, a request ends in time with an error saying
// so, or is served by the other server. Then the first server is well again.
func TestSpoiltAnswers(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		spoil func(*foreign, net.Conn, []byte) error
	}{
		{"hangs", hangs},
		{"hangs midway", hangsMidway},
		{"closes early", closesEarly},
		{"closes at once", closesAtOnce},
		{"garbage", writes(garbage)},
		{"garbage within", writes(garbageWithin)},
		{"huge", writes(huge)},
		{"huge within", writes(hugeWithin)},
		{"deep", writes(deep)},
		{"odd type", writes(oddType)},
		{"other operation", writes(otherOperation)},
		{"other request", writes(otherRequest)},
		{"other key", writes(otherKey)},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := newPKI(t)
			first := newForeign(t, p, newVault())
			second := newForeign(t, p, first.vault)
			config := p.config(t, first.address, second.address)
			kek := create(t, open(t, config)) // before the short timeout is set
			if strings.HasPrefix(c.name, "hangs") {
				config.Timeout = hungTimeout
			}
			both := open(t, config)
			config.Servers = config.Servers[:1]
			alone := open(t, config)

			first.trouble.Store(&trouble{ovh.OperationGet, c.spoil})
			begin := time.Now()
			if _, _, err := alone.Get(t.Context(), kek.ID, nil); !errors.Is(err, keys.ErrUnreachable) || !strings.Contains(err.Error(), first.address) {
				t.Errorf("get: %v, want %v that names %s", err, keys.ErrUnreachable, first.address)
			}
			got, _, err := both.Get(t.Context(), kek.ID, nil)
			if err != nil {
				t.Fatalf("get from the other server: %v", err)
			}
			got.Wipe()
			if took := time.Since(begin); took > 2*config.Timeout {
				t.Errorf("it took %v", took)
			}

			first.trouble.Store(nil)
			awaitKey(t, alone, kek)
		})
	}
}

// TestKeyIsOverwritten: where the attributes of a fetched key are refused, another answer
// overwrites the key in the connection's buffer.
func TestKeyIsOverwritten(t *testing.T) {
	t.Parallel()
	p := newPKI(t)
	f := newForeign(t, p, newVault())
	provider := open(t, p.config(t, f.address))
	kek := create(t, provider)
	f.mute.Store(true)
	if _, _, err := provider.Get(t.Context(), kek.ID, nil); !errors.Is(err, keys.ErrRefused) {
		t.Errorf("get: %v, want %v", err, keys.ErrRefused)
	}
	if key, last := f.gotLen.Load(), f.lastLen.Load(); key == 0 || last < key {
		t.Errorf("the last answer has %d bytes, that with the key %d", last, key)
	}
}

// awaitKey asks for a key until the key is given.
func awaitKey(t *testing.T, p *kmip.Provider, want *keys.KEK) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	late := time.After(patience)
	for {
		got, _, err := p.Get(t.Context(), want.ID, nil)
		if err == nil {
			if got.CheckValue() != want.CheckValue() {
				t.Error("another key")
			}
			got.Wipe()
			return
		}
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("not back: %v", err)
		}
	}
}

// foreignPair is two servers over one vault and a provider of both.
func foreignPair(t *testing.T) (p *pki, first, second *foreign, provider *kmip.Provider) {
	t.Helper()
	return foreignPairWithin(t, patience)
}

// foreignPairWithin is foreignPair with a timeout of requests.
func foreignPairWithin(t *testing.T, timeout time.Duration) (p *pki, first, second *foreign, provider *kmip.Provider) {
	t.Helper()
	p = newPKI(t)
	first = newForeign(t, p, newVault())
	second = newForeign(t, p, first.vault)
	config := p.config(t, first.address, second.address)
	config.Timeout = timeout
	return p, first, second, open(t, config)
}

// TestWrongKeys: a key other than the identifier's is refused.
func TestWrongKeys(t *testing.T) {
	t.Parallel()
	_, first, _, provider := foreignPair(t)
	for _, c := range []struct {
		name string
		edit func(*foreignKey)
		want error
	}{
		{"pre-active", func(k *foreignKey) { k.state = ovh.StatePreActive }, keys.ErrKeyState},
		{"destroyed", func(k *foreignKey) { k.state = ovh.StateDestroyed }, keys.ErrKeyState},
		{"destroyed compromised", func(k *foreignKey) { k.state = ovh.StateDestroyedCompromised }, keys.ErrKeyState},
		{"a state of no meaning", func(k *foreignKey) { k.state = 77 }, keys.ErrUnreachable},
		{"half the bytes", func(k *foreignKey) { k.material = k.material[:16] }, keys.ErrKeyLength},
		{"one byte more", func(k *foreignKey) { k.material = append(k.material, 1) }, keys.ErrKeyLength},
		{"no bytes", func(k *foreignKey) { k.material = []byte{} }, keys.ErrKeyLength},
		{"128 bits", func(k *foreignKey) { k.bits, k.material = 128, k.material[:16] }, keys.ErrKeyLength},
		{"bits and bytes disagree", func(k *foreignKey) { k.bits = 128 }, keys.ErrKeyLength},
	} {
		t.Run(c.name, func(t *testing.T) {
			kek := create(t, provider)
			first.vault.edit(t, kek.ID, c.edit)
			got, _, err := provider.Get(t.Context(), kek.ID, nil)
			if !errors.Is(err, c.want) {
				t.Errorf("get: %v, want %v", err, c.want)
			}
			if got != nil {
				t.Error("a key came with the error")
			}
		})
	}
}

// TestOddKey: one key with nonsense from every server costs the other keys nothing.
func TestOddKey(t *testing.T) {
	t.Parallel()
	_, first, _, provider := foreignPair(t)
	odd, good := create(t, provider), create(t, provider)
	first.vault.edit(t, odd.ID, func(k *foreignKey) { k.state = 77 })
	cache := keys.NewCache(slog.New(slog.DiscardHandler), provider)
	defer cache.Close()
	use := func(id string) error {
		return cache.Use(t.Context(), keys.Ref{Provider: provider.Name(), ID: id}, func(*keys.KEK) error { return nil })
	}
	if err := use(odd.ID); !errors.Is(err, keys.ErrUnreachable) {
		t.Errorf("the odd key: %v, want %v", err, keys.ErrUnreachable)
	}
	if err := use(good.ID); err != nil {
		t.Errorf("another key: %v", err)
	}
}

// TestRestoredEmpty: a KMS that lost all keys gives the old identifiers to new keys.
func TestRestoredEmpty(t *testing.T) {
	t.Parallel()
	_, first, _, provider := foreignPair(t)
	kek := create(t, provider)
	check := kek.CheckValue()
	first.vault.edit(t, kek.ID, func(k *foreignKey) { k.material[0] ^= 1 })
	cache := keys.NewCache(slog.New(slog.DiscardHandler), provider)
	defer cache.Close()
	err := cache.Use(t.Context(), keys.Ref{Provider: provider.Name(), ID: kek.ID, Check: &check}, func(*keys.KEK) error {
		t.Error("the wrong key was used")
		return nil
	})
	if !errors.Is(err, keys.ErrWrongKey) {
		t.Errorf("use: %v, want %v", err, keys.ErrWrongKey)
	}
}

// TestRestoredBelowAHeldKey: a fetched key's identifier belongs to another key by now. The other
// key's state is not reported for the fetched one. A date alone proves nothing.
func TestRestoredBelowAHeldKey(t *testing.T) {
	t.Parallel()
	_, first, _, provider := foreignPair(t)
	kek := create(t, provider)
	got, _, err := provider.Get(t.Context(), kek.ID, nil)
	if err != nil {
		t.Fatal(err)
	}
	got.Wipe()
	later := func(k *foreignKey) { k.made = k.made.Add(time.Hour) }
	first.vault.edit(t, kek.ID, later)
	wantState(t, provider, kek.ID, keys.Active)
	first.vault.edit(t, kek.ID, func(k *foreignKey) { later(k); k.material[0] ^= 1 })
	for _, now := range []ovh.State{ovh.StateActive, ovh.StateActive, ovh.StateDestroyed, ovh.StatePreActive} {
		first.vault.edit(t, kek.ID, func(k *foreignKey) { k.state = now })
		if state, err := provider.State(t.Context(), kek.ID); !errors.Is(err, keys.ErrNotFound) || !strings.Contains(err.Error(), "another key") {
			t.Errorf("state of another that is %v: %v, %v, want %v and why", now, state, err, keys.ErrNotFound)
		}
	}
	first.vault.edit(t, kek.ID, func(k *foreignKey) { k.state, k.made = ovh.StateDestroyed, time.Time{} })
	wantState(t, provider, kek.ID, keys.Destroyed) // a destroyed key may have lost its date
}

func TestDenied(t *testing.T) {
	t.Parallel()
	_, first, second, provider := foreignPair(t)
	kek := create(t, provider)
	first.denies.Store(true)
	second.denies.Store(true)
	if _, _, err := provider.Get(t.Context(), kek.ID, nil); !errors.Is(err, keys.ErrRefused) {
		t.Errorf("get: %v, want %v", err, keys.ErrRefused)
	}
	for _, h := range provider.Health() {
		if !h.Checked.IsZero() && !h.OK {
			t.Errorf("a server that refuses is suspect: %+v", h)
		}
	}
}

// TestPickyServers: attributes refused by a server are left out.
func TestPickyServers(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ noCustom, wrapOnly bool }{{true, false}, {false, true}, {true, true}} {
		t.Run(fmt.Sprintf("%+v", c), func(t *testing.T) {
			t.Parallel()
			p := newPKI(t)
			f := newForeign(t, p, newVault())
			f.noCustom.Store(c.noCustom)
			f.wrapOnly.Store(c.wrapOnly)
			provider := open(t, p.config(t, f.address))
			name := label()
			kek, err := provider.Create(t.Context(), name)
			if err != nil {
				t.Fatal(err)
			}
			kek.Wipe()
			if n := f.vault.named(name); n != 1 {
				t.Errorf("%d keys, want 1", n)
			}
		})
	}
}

func TestRekey(t *testing.T) {
	t.Parallel()
	_, first, second, provider := foreignPair(t)
	kek := create(t, provider)
	fresh, err := provider.Rekey(t.Context(), kek.ID)
	if err != nil {
		t.Fatal(err)
	}
	defer fresh.Wipe()
	if fresh.ID == kek.ID || fresh.CheckValue() == kek.CheckValue() {
		t.Error("the new key is the old one")
	}
	wantState(t, provider, fresh.ID, keys.Active)
	first.noRekey.Store(true)
	second.noRekey.Store(true)
	if _, err := provider.Rekey(t.Context(), kek.ID); !errors.Is(err, keys.ErrRefused) {
		t.Errorf("re-key where it is not offered: %v, want %v", err, keys.ErrRefused)
	}
}

// once spoils the first answer only.
func once(spoil func(*foreign, net.Conn, []byte) error) func(*foreign, net.Conn, []byte) error {
	var done atomic.Bool
	return func(f *foreign, conn net.Conn, frame []byte) error {
		if done.Swap(true) {
			_, err := conn.Write(frame)
			return err
		}
		return spoil(f, conn, frame)
	}
}
