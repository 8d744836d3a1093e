package kmip_test

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	ovh "github.com/ovh/kmip-go"

	"vmcryptfs/keys"
)

// TestBadReplica: one of two servers refuses a key, or gives a wrong one, in every way: the other
// server gives the key. The first server's answer is in its health, and in the log once.
func TestBadReplica(t *testing.T) {
	t.Parallel()
	refuses := func(reason ovh.ResultReason) func(*foreign, *foreignKey) {
		return func(f *foreign, _ *foreignKey) { f.refuses.Store(uint32(reason)) }
	}
	key := func(edit func(*foreignKey)) func(*foreign, *foreignKey) {
		return func(_ *foreign, k *foreignKey) { edit(k) }
	}
	spoils := func(spoil func(*foreign, net.Conn, []byte) error) func(*foreign, *foreignKey) {
		return func(f *foreign, _ *foreignKey) { f.trouble.Store(&trouble{ovh.OperationGet, spoil}) }
	}
	for _, c := range []struct {
		name  string
		spoil func(*foreign, *foreignKey)
		said  string // the server's health about the key
	}{
		{"permission denied", refuses(ovh.ResultReasonPermissionDenied), "PermissionDenied"},
		{"not authenticated", refuses(ovh.ResultReasonAuthenticationNotSuccessful), "AuthenticationNotSuccessful"},
		{"invalid field", refuses(ovh.ResultReasonInvalidField), "InvalidField"},
		{"not supported", refuses(ovh.ResultReasonOperationNotSupported), "OperationNotSupported"},
		{"cryptographic failure", refuses(ovh.ResultReasonCryptographicFailure), "CryptographicFailure"},
		{"not extractable", refuses(ovh.ResultReasonNotExtractable), "NotExtractable"},
		{"archived", refuses(ovh.ResultReasonObjectArchived), "ObjectArchived"},
		{"general failure", refuses(ovh.ResultReasonGeneralFailure), "GeneralFailure"},
		{"wrong", key(func(k *foreignKey) { k.material[0] ^= 1 }), "another key under that identifier"},
		{"short", key(func(k *foreignKey) { k.material = k.material[:16] }), "256-bit"},
		{"long", key(func(k *foreignKey) { k.material = append(k.material, 1) }), "256-bit"},
		{"empty", key(func(k *foreignKey) { k.material = []byte{} }), "256-bit"},
		{"128 bits", key(func(k *foreignKey) { k.bits, k.material = 128, k.material[:16] }), "256-bit"},
		{"pre-active", key(func(k *foreignKey) { k.state = ovh.StatePreActive }), "pre-active"},
		{"a state of no meaning", key(func(k *foreignKey) { k.state = 77 }), "malformed"},
		{"of another identifier", spoils(writes(otherKey)), "malformed"},
		{"of another operation", spoils(writes(otherOperation)), "malformed"},
		{"garbage", spoils(writes(garbageWithin)), "malformed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p, first, second, kek := replicas(t)
			first.vault.edit(t, kek.ID, func(k *foreignKey) { c.spoil(first, k) })
			provider, log := openLogged(t, p.config(t, first.address, second.address))
			cache := keys.NewCache(slog.New(slog.DiscardHandler), provider)
			defer cache.Close()
			check := kek.CheckValue()
			ref := keys.Ref{Provider: provider.Name(), ID: kek.ID, Check: &check}
			for range 3 { // the second time the better server is known
				if err := cache.Use(t.Context(), ref, func(*keys.KEK) error { return nil }); err != nil {
					t.Fatal(err)
				}
				for _, step := range []func(){cache.Lock, cache.Unlock} { // the cache forgets the key
					step()
				}
			}
			h := provider.Health()[0]
			if len(h.KeyErrors) != 1 || h.KeyErrors[0].Key != kek.ID || !strings.Contains(h.KeyErrors[0].Error, c.said) || h.State != keys.ServerOK {
				t.Errorf("health %+v, want %q of the key", h, c.said)
			}
			if n := log.count("does not give a key that another one gives"); n != 1 {
				t.Errorf("logged %d times, want once", n)
			}
		})
	}
}

// replicas are two servers, each with a vault of its own, and a key in both vaults. The second
// server made the key, on its only session.
func replicas(t *testing.T) (p *pki, first, second *foreign, kek *keys.KEK) {
	t.Helper()
	p = newPKI(t)
	first, second = newForeign(t, p, newVault()), newForeign(t, p, newVault())
	kek = create(t, open(t, p.config(t, second.address)))
	first.vault.copy(second.vault)
	return p, first, second, kek
}

// copy takes over the keys of another, larger vault.
func (v *vault) copy(from *vault) {
	from.mu.Lock()
	defer from.mu.Unlock()
	v.mu.Lock()
	defer v.mu.Unlock()
	v.last = from.last
	for id, k := range from.keys {
		twin := *k
		twin.material = append([]byte{}, k.material...)
		v.keys[id] = &twin
	}
}

// TestAllWrong: where every server gives a wrong key, the answer is ErrWrongKey, and no key is
// returned.
func TestAllWrong(t *testing.T) {
	t.Parallel()
	_, first, second, provider := foreignPair(t)
	kek := create(t, provider)
	wants := func(k *keys.KEK) bool { return k.CheckValue() == kek.CheckValue() }
	first.vault.edit(t, kek.ID, func(k *foreignKey) { k.material[0] ^= 1 })
	if got, _, err := provider.Get(t.Context(), kek.ID, wants); !errors.Is(err, keys.ErrWrongKey) || got != nil {
		t.Errorf("get: %v, %v; want %v", got, err, keys.ErrWrongKey)
	}
	second.lags.Store(true)
	if _, _, err := provider.Get(t.Context(), kek.ID, wants); !errors.Is(err, keys.ErrWrongKey) || errors.Is(err, keys.ErrNotFound) {
		t.Errorf("get of a wrong one and of none: %v, want %v", err, keys.ErrWrongKey)
	}
}

// TestDestroyedIsFinal: a server that says "destroyed" knows more than a lagging one. A server
// that refuses, with the reason elsewhere, does not end the search.
func TestDestroyedIsFinal(t *testing.T) {
	t.Parallel()
	p, first, second, kek := replicas(t)
	first.vault.edit(t, kek.ID, func(k *foreignKey) { k.state, k.material = ovh.StateDestroyed, nil })
	provider := open(t, p.config(t, first.address, second.address))
	if _, _, err := provider.Get(t.Context(), kek.ID, nil); !errors.Is(err, keys.ErrKeyState) || !strings.Contains(err.Error(), "destroyed") {
		t.Errorf("get: %v, want %v", err, keys.ErrKeyState)
	}
	wantState(t, provider, kek.ID, keys.Destroyed)
	if n := second.accepted.Load(); n != 1 { // from the provider that made the key
		t.Errorf("the other server was asked, on %d sessions", n-1)
	}
}

// TestLaggingState: the state of a key whose activation one server does not know yet.
func TestLaggingState(t *testing.T) {
	t.Parallel()
	p, first, second, kek := replicas(t)
	preActive := func(k *foreignKey) { k.state = ovh.StatePreActive }
	first.vault.edit(t, kek.ID, preActive)
	provider := open(t, p.config(t, first.address, second.address))
	wantState(t, provider, kek.ID, keys.Active)
	if _, err := provider.Ready(t.Context(), kek.ID); err != nil {
		t.Error(err)
	}
	second.vault.edit(t, kek.ID, preActive)
	wantState(t, provider, kek.ID, keys.PreActive)
}

// TestCreateRefusedByOne: a replica that makes no keys (a read-only clone), or activates none,
// does not keep the other replica from making one.
func TestCreateRefusedByOne(t *testing.T) {
	t.Parallel()
	for _, on := range []ovh.Operation{ovh.OperationCreate, ovh.OperationActivate} {
		t.Run(fmt.Sprintf("operation %d", on), func(t *testing.T) {
			t.Parallel()
			_, first, second, provider := foreignPair(t)
			first.clone.Store(uint32(on))
			kek := create(t, provider)
			wantState(t, provider, kek.ID, keys.Active)
			if second.accepted.Load() == 0 {
				t.Error("the other server was not asked")
			}
		})
	}
}

// TestForeignDestroyed: a server gives another key under the identifier, destroyed there. The
// wanted key's state stays unaffected.
func TestForeignDestroyed(t *testing.T) {
	t.Parallel()
	p, first, second, kek := replicas(t)
	first.givesAll.Store(true)
	first.vault.edit(t, kek.ID, func(k *foreignKey) {
		k.state = ovh.StateDestroyed
		k.material[0] ^= 1
	})
	provider := open(t, p.config(t, first.address, second.address))
	got, _, err := provider.Get(t.Context(), kek.ID, func(k *keys.KEK) bool { return k.CheckValue() == kek.CheckValue() })
	if err != nil {
		t.Fatal(err)
	}
	got.Wipe()
	if h := provider.Health()[0]; len(h.KeyErrors) != 1 || h.KeyErrors[0].Key != kek.ID {
		t.Errorf("%+v, want that it did not give the key", h)
	}
	config := p.config(t, first.address, second.address)
	config.Timeout = 17 * time.Second
	if _, err := provider.Reconfigure(config); err != nil {
		t.Fatal(err)
	}
	if h := provider.Health()[0]; len(h.KeyErrors) != 1 || h.KeyErrors[0].Key != kek.ID {
		t.Errorf("after a change of the configuration: %+v, want that it did not give the key", h)
	}
}
