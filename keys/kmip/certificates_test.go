package kmip_test

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"testing"
	"time"

	ovh "github.com/ovh/kmip-go"

	"vmcryptfs/keys"
	"vmcryptfs/keys/kmip"
)

// told are the certificates of a provider in a line each.
func told(p *kmip.Provider) (list []string) {
	for _, c := range p.Certificates() {
		list = append(list, fmt.Sprintf("%s %s %s %v", c.Role, c.Subject, c.File, c.Servers))
	}
	return list
}

// TestProviderCertificates: the certificates needed by sessions, from the files alone and from
// the last handshake, the first end first.
func TestProviderCertificates(t *testing.T) {
	t.Parallel()
	p := newPKI(t)
	between := p.under(t, time.Now().Add(-time.Hour), time.Now().Add(time.Hour))
	f := &foreign{vault: newVault()}
	f.startAs(t, between, "127.0.0.1:0", leaf{to: time.Now().Add(30 * time.Minute)})
	ca, err := os.ReadFile(p.ca)
	if err != nil {
		t.Fatal(err)
	}
	// An old CA in the bundle, unused by every certificate in use.
	overwrite(t, p.ca, string(newPKI(t).under(t, time.Now().Add(-time.Hour), time.Now().Add(time.Minute)).chain)+string(ca))
	config := between.config(t, f.address)
	config.Cert, config.Key = between.issue(t, "mine", leaf{client: true, to: time.Now().Add(2 * time.Hour)})
	provider := open(t, config)
	want := []string{"intermediate certificate CN=intermediate " + config.Cert + " []",
		"client certificate CN=mine " + config.Cert + " []", "CA certificate CN=test CA " + p.ca + " []"}
	if got := told(provider); !slices.Equal(got, want) {
		t.Errorf("before a handshake:\n%q, want\n%q", got, want)
	}
	create(t, provider)
	want = []string{
		"server certificate CN=foreign  [" + f.address + "]",
		"intermediate certificate CN=intermediate " + config.Cert + " []",
		"intermediate certificate CN=intermediate  [" + f.address + "]",
		"client certificate CN=mine " + config.Cert + " []",
		"CA certificate CN=test CA " + p.ca + " [" + f.address + "]",
	}
	if got := told(provider); !slices.Equal(got, want) {
		t.Errorf("after it:\n%q, want\n%q", got, want)
	}
}

// TestKeyEnds: the first date from which a key wraps no more is known after a request for the key
// or the key's state.
func TestKeyEnds(t *testing.T) {
	t.Parallel()
	p := newPKI(t)
	f := newForeign(t, p, newVault())
	provider := open(t, p.config(t, f.address))
	kek := create(t, provider)
	stop, end := time.Now().Add(48*time.Hour).Truncate(time.Second), time.Now().Add(96*time.Hour).Truncate(time.Second)
	check := func(want time.Time) {
		t.Helper()
		if got := provider.KeyEnds(kek.ID); !got.Equal(want) {
			t.Errorf("the key ends %v, want %v", got, want)
		}
	}
	f.vault.edit(t, kek.ID, func(k *foreignKey) { k.dates = map[ovh.AttributeName]time.Time{ovh.AttributeNameDeactivationDate: end} })
	check(time.Time{})
	wantState(t, provider, kek.ID, keys.Active)
	check(end)
	f.vault.edit(t, kek.ID, func(k *foreignKey) { k.dates[ovh.AttributeNameProtectStopDate] = stop })
	awaitKey(t, provider, kek)
	check(stop)
	if d, err := provider.Describe(t.Context(), kek.ID); err != nil || !d.Ends.Equal(stop) || !d.Deactivation.Equal(end) {
		t.Errorf("%+v, %v", d, err)
	}
	f.vault.edit(t, kek.ID, func(k *foreignKey) { k.dates = nil })
	wantState(t, provider, kek.ID, keys.Active)
	check(time.Time{})
}

// TestEndedWrapsNoMore: an Active key past its end opens files, and wraps no new one until the
// KMS reports another end.
func TestEndedWrapsNoMore(t *testing.T) {
	t.Parallel()
	p := newPKI(t)
	f := newForeign(t, p, newVault())
	provider := open(t, p.config(t, f.address))
	kek := create(t, provider)
	cache := keys.NewCache(slog.New(slog.DiscardHandler), provider)
	defer cache.Close()
	ref := keys.Ref{Provider: provider.Name(), ID: kek.ID}
	nothing := func(*keys.KEK) error { return nil }
	for _, date := range []ovh.AttributeName{ovh.AttributeNameProtectStopDate, ovh.AttributeNameDeactivationDate} {
		f.vault.edit(t, kek.ID, func(k *foreignKey) {
			k.dates = map[ovh.AttributeName]time.Time{date: time.Now().Add(-time.Minute)}
		})
		wantState(t, provider, kek.ID, keys.Active)
		if err := cache.UseForNew(t.Context(), ref, nothing); !errors.Is(err, keys.ErrKeyState) {
			t.Errorf("%s is past: %v; want %v", date, err, keys.ErrKeyState)
		}
		if err := cache.Use(t.Context(), ref, nothing); err != nil {
			t.Errorf("%s is past, and no file opens: %v", date, err)
		}
		f.vault.edit(t, kek.ID, func(k *foreignKey) { k.dates[date] = time.Now().Add(time.Hour) })
		if err := cache.UseForNew(t.Context(), ref, nothing); err != nil {
			t.Errorf("%s is put off: %v", date, err)
		}
	}
}
