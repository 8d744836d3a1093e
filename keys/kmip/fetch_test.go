package kmip_test

import (
	"log/slog"
	"testing"

	ovh "github.com/ovh/kmip-go"

	"vmcryptfs/keys"
)

// TestFetchAsksStateOnce: the cache fetches a KEK with one request for its state, and that
// request decides whether the KEK opens files and whether the KEK wraps new ones.
func TestFetchAsksStateOnce(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name          string
		state         ovh.State
		opens, forNew bool
	}{
		{"active", ovh.StateActive, true, true},
		{"deactivated", ovh.StateDeactivated, true, false},
		{"compromised", ovh.StateCompromised, true, false},
		{"destroyed", ovh.StateDestroyed, false, false},
		{"destroyed compromised", ovh.StateDestroyedCompromised, false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := newPKI(t)
			f := newForeign(t, p, newVault())
			provider := open(t, p.config(t, f.address))
			kek := create(t, provider)
			f.vault.edit(t, kek.ID, func(k *foreignKey) { k.state = c.state })
			f.givesAll.Store(true)
			cache := keys.NewCache(slog.New(slog.DiscardHandler), provider)
			defer cache.Close()
			check := kek.CheckValue()
			ref := keys.Ref{Provider: provider.Name(), ID: kek.ID, Check: &check}
			before := f.asked.Load()
			err := cache.Use(t.Context(), ref, func(*keys.KEK) error { return nil })
			if (err == nil) != c.opens {
				t.Errorf("use: %v, want it to open: %t", err, c.opens)
			}
			err = cache.UseForNew(t.Context(), ref, func(*keys.KEK) error { return nil })
			if (err == nil) != c.forNew {
				t.Errorf("use for a new file: %v, want it to wrap: %t", err, c.forNew)
			}
			if n := f.asked.Load() - before; n != 1 {
				t.Errorf("the KMS was asked %d times for attributes, want once", n)
			}
			held := cache.Held()
			if !c.opens && len(held) != 0 || c.opens && (len(held) != 1 || held[0].State != c.name) {
				t.Errorf("held: %+v", held)
			}
		})
	}
}
