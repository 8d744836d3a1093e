package kmip_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	ovh "github.com/ovh/kmip-go"

	"vmcryptfs/keys"
	"vmcryptfs/keys/kmip"
)

// TestOthersKey: after a lost Create, the answer to Locate is not believed. Only the requested
// key is taken, and no other is activated.
func TestOthersKey(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		other func(k *foreignKey, label string) // changes the key given by Locate
		made  bool                              // the request is done, and the answer lost
		alone bool                              // one server: nobody else may make the key
	}{
		{"of another name", func(k *foreignKey, _ string) { k.name = "payroll" }, false, true},
		{"of another name, two servers", func(k *foreignKey, _ string) { k.name = "payroll" }, false, false},
		{"of another name, beside it", func(k *foreignKey, _ string) { k.name = "payroll" }, true, true},
		{"of no name", func(k *foreignKey, _ string) { k.name = "" }, false, true},
		{"of a longer name", func(k *foreignKey, label string) { k.name = label + "0" }, false, true},
		{"private", func(k *foreignKey, label string) { k.name, k.private = label, true }, false, true},
		{"older", func(k *foreignKey, label string) { k.name, k.made = label, k.made.Add(-time.Hour) }, false, true},
		{"of no date", func(k *foreignKey, label string) { k.name, k.made = label, time.Time{} }, false, true},
		{"short", func(k *foreignKey, label string) { k.name, k.bits = label, 128 }, false, true},
		{"ended", func(k *foreignKey, label string) { k.name, k.state = label, ovh.StateDeactivated }, false, true},
		{"no key", func(k *foreignKey, label string) {
			k.name = label
			k.more = []ovh.Attribute{{AttributeName: ovh.AttributeNameObjectType, AttributeValue: ovh.ObjectTypeSecretData}}
		}, false, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := newPKI(t)
			first := newForeign(t, p, newVault())
			second := newForeign(t, p, first.vault)
			first.listsAll.Store(true)
			second.listsAll.Store(true)
			label := label()
			other, err := first.add(nil, make([]byte, 32))
			if err != nil {
				t.Fatal(err)
			}
			first.vault.edit(t, other, func(k *foreignKey) { c.other(k, label) })
			before := first.vault.look(other)
			first.drops.Store(!c.made)
			first.trouble.Store(&trouble{ovh.OperationCreate, closesAtOnce})
			servers := []string{first.address, second.address}
			if c.alone {
				servers = servers[:1]
			}
			kek, err := open(t, p.config(t, servers...)).Create(t.Context(), label)
			defer kek.Wipe()
			if want := c.made || !c.alone; (err == nil) != want {
				t.Errorf("create: %v, want a key: %v", err, want)
			}
			if err == nil && kek.ID == other {
				t.Error("another's key was taken")
			}
			if now := first.vault.look(other); now.state != before.state {
				t.Errorf("another's key was %v, and is %v", before.state, now.state)
			}
		})
	}
}

// TestSlowSearch: a server that lists many keys, and is slow to describe the keys, is not taken
// for a server without an answer.
func TestSlowSearch(t *testing.T) {
	t.Parallel()
	p := newPKI(t)
	f := newForeign(t, p, newVault())
	f.listsAll.Store(true)
	for range 15 {
		if _, err := f.add(nil, make([]byte, 32)); err != nil {
			t.Fatal(err)
		}
	}
	f.trouble.Store(&trouble{ovh.OperationGetAttributes, answersAfter(time.Second)})
	config := p.config(t, f.address)
	config.Timeout = 20 * time.Second // 8 s for a server
	provider, log := openLogged(t, config)
	if ids, err := provider.Find(t.Context(), label()); err != nil || len(ids) > 0 {
		t.Errorf("find: %v, %v, want none", ids, err)
	}
	if h := provider.Health()[0]; h.State == keys.ServerDown || log.count("does not serve") > 0 {
		t.Errorf("a slow server counts as down: %+v", h)
	}
}

// look is a copy of a key.
func (v *vault) look(id string) foreignKey {
	v.mu.Lock()
	defer v.mu.Unlock()
	return *v.keys[id]
}

// TestAllNamesIgnored: a server keeps no names and lists all its keys. A lost Create takes none
// of the listed keys, however many.
func TestAllNamesIgnored(t *testing.T) {
	t.Parallel()
	for _, n := range []int{1, 100} {
		t.Run(fmt.Sprint(n, " keys"), func(t *testing.T) {
			t.Parallel()
			p := newPKI(t)
			f := newForeign(t, p, newVault())
			f.nameless.Store(true)
			f.listsAll.Store(true)
			for range n {
				if _, err := f.add(nil, make([]byte, 32)); err != nil {
					t.Fatal(err)
				}
			}
			f.drops.Store(true)
			f.trouble.Store(&trouble{ovh.OperationCreate, once(closesAtOnce)})
			provider := open(t, p.config(t, f.address))
			if kek, err := provider.Create(t.Context(), label()); !errors.Is(err, keys.ErrUnreachable) {
				t.Errorf("create: %v, %v; want %v", kek, err, keys.ErrUnreachable)
			}
			f.drops.Store(false)
			create(t, provider) // where no answer is lost, names are not needed
			f.vault.mu.Lock()
			defer f.vault.mu.Unlock()
			active := 0
			for _, k := range f.vault.keys {
				if k.state == ovh.StateActive {
					active++
				}
			}
			if active != 1 {
				t.Errorf("%d keys were activated, want 1", active)
			}
		})
	}
}

// TestNameTaken: a Name taken at the KMS by a key invisible to every search is passed over for
// the next number, whatever error the KMS gives; the attempts are bounded.
func TestNameTaken(t *testing.T) {
	t.Parallel()
	const nonUnique = 0x35 // Non Unique Name Attribute, of KMIP 2.0
	for _, reason := range []ovh.ResultReason{ovh.ResultReasonInvalidField, ovh.ResultReasonObjectAlreadyExists, nonUnique} {
		t.Run(fmt.Sprintf("reason %#x", uint32(reason)), func(t *testing.T) {
			t.Parallel()
			p := newPKI(t)
			f := newForeign(t, p, newVault())
			provider := open(t, p.config(t, f.address))
			number := func(n uint64) string { return kmip.Label(datastore, int(n)) }
			taken := func(n int) {
				for n := range n {
					id, err := f.add(nil, make([]byte, 32))
					if err != nil {
						t.Fatal(err)
					}
					f.vault.edit(t, id, func(k *foreignKey) { k.name, k.state = number(uint64(n+1)), ovh.StateDestroyed })
				}
			}
			taken(3)
			f.unique.Store(uint32(reason))
			if _, err := provider.Create(t.Context(), number(1)); !errors.Is(err, keys.ErrNameTaken) || !errors.Is(err, keys.ErrRefused) {
				t.Errorf("create of a name that is taken: %v, want %v", err, keys.ErrNameTaken)
			}
			kek, err := keys.CreateFrom(t.Context(), provider, number, 1)
			if err != nil {
				t.Fatal(err)
			}
			defer kek.Wipe()
			if got := f.vault.look(kek.ID).name; got != number(4) {
				t.Errorf("the key has the name %q, want %q", got, number(4))
			}
			taken(keys.MostTaken)
			if _, err := keys.CreateFrom(t.Context(), provider, number, 1); !errors.Is(err, keys.ErrNameTaken) {
				t.Errorf("with all names taken: %v, want %v", err, keys.ErrNameTaken)
			}
		})
	}
}

// TestReady: only a key that wraps and opens now may be put in use for new files.
func TestReady(t *testing.T) {
	t.Parallel()
	p := newPKI(t)
	f := newForeign(t, p, newVault())
	provider := open(t, p.config(t, f.address))
	attribute := func(name ovh.AttributeName, value any) func(*foreignKey) {
		return func(k *foreignKey) {
			k.more = []ovh.Attribute{{AttributeName: name, AttributeValue: value}}
		}
	}
	usage := func(mask ovh.CryptographicUsageMask) func(*foreignKey) {
		return attribute(ovh.AttributeNameCryptographicUsageMask, mask)
	}
	state := func(s ovh.State) func(*foreignKey) { return func(k *foreignKey) { k.state = s } }
	past, future := time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	for _, c := range []struct {
		name string
		edit func(*foreignKey)
		want error
	}{
		{"active", state(ovh.StateActive), nil},
		{"pre-active", state(ovh.StatePreActive), keys.ErrKeyState},
		{"deactivated", state(ovh.StateDeactivated), keys.ErrKeyState},
		{"compromised", state(ovh.StateCompromised), keys.ErrKeyState},
		{"destroyed", state(ovh.StateDestroyed), keys.ErrKeyState},
		{"128 bits", func(k *foreignKey) { k.bits = 128 }, keys.ErrKeyLength},
		{"no key", attribute(ovh.AttributeNameObjectType, ovh.ObjectTypeSecretData), keys.ErrKeyLength},
		{"to encrypt and decrypt", usage(ovh.CryptographicUsageEncrypt | ovh.CryptographicUsageDecrypt), nil},
		{"to wrap and unwrap", usage(ovh.CryptographicUsageWrapKey | ovh.CryptographicUsageUnwrapKey), nil},
		{"to encrypt alone", usage(ovh.CryptographicUsageEncrypt), keys.ErrKeyState},
		{"to unwrap alone", usage(ovh.CryptographicUsageUnwrapKey), keys.ErrKeyState},
		{"to sign", usage(ovh.CryptographicUsageSign), keys.ErrKeyState},
		{"begins to open later", attribute(ovh.AttributeNameProcessStartDate, future), keys.ErrKeyState},
		{"has begun to open", attribute(ovh.AttributeNameProcessStartDate, past), nil},
		{"wraps no more", attribute(ovh.AttributeNameProtectStopDate, past), keys.ErrKeyState},
		{"wraps still", attribute(ovh.AttributeNameProtectStopDate, future), nil},
		{"has ended", attribute(ovh.AttributeNameDeactivationDate, past), keys.ErrKeyState},
		{"will end", attribute(ovh.AttributeNameDeactivationDate, future), nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			kek := create(t, provider)
			f.vault.edit(t, kek.ID, c.edit)
			if _, err := provider.Ready(t.Context(), kek.ID); !errors.Is(err, c.want) {
				t.Errorf("ready: %v, want %v", err, c.want)
			}
		})
	}
	if _, err := provider.Ready(t.Context(), "none"); !errors.Is(err, keys.ErrNotFound) {
		t.Errorf("ready, of no key: %v, want %v", err, keys.ErrNotFound)
	}
}
