package kmip_test

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	ovh "github.com/ovh/kmip-go"

	"vmcryptfs/keys"
	"vmcryptfs/keys/kmip"
)

// TestCheck: each server's report has the step reached.
func TestCheck(t *testing.T) {
	t.Parallel()
	p := newPKI(t)
	well := newForeign(t, p, newVault())
	start := func(edit func(*foreign)) *foreign {
		f := newForeign(t, p, well.vault)
		edit(f)
		return f
	}
	stranger := newForeign(t, newPKI(t), well.vault)
	lags := start(func(f *foreign) { f.lags.Store(true) })
	noQuery := start(func(f *foreign) { f.trouble.Store(&trouble{ovh.OperationQuery, closesAtOnce}) })
	mute := start(func(f *foreign) { f.trouble.Store(&trouble{ovh.OperationDiscoverVersions, hangs}) })
	deaf := start(func(f *foreign) { f.deaf.Store(true) })
	gone := start(func(*foreign) {})
	gone.stop()
	config := p.config(t, well.address, stranger.address, lags.address, noQuery.address, mute.address, deaf.address, gone.address, "kms.invalid:5696")
	config.Timeout = 2 * hungTimeout // 4 s for hanging servers
	provider := open(t, config)
	kek := create(t, provider)
	used := 0
	reports := provider.Check(t.Context(), &kmip.Probe{Key: kek.ID, Use: func(k *keys.KEK) error {
		used++ // by one server alone
		if k.CheckValue() != kek.CheckValue() {
			return errors.New("another key")
		}
		return nil
	}})
	if used != 1 {
		t.Errorf("the key was used %d times", used)
	}
	steps := []string{"", "tls", "key", "operations", "versions", "tls", "connect", "resolve"}
	for i, r := range reports {
		if r.Address != config.Servers[i] || r.Step != steps[i] || (r.Err == nil) != (r.Step == "") {
			t.Errorf("%s: ended at %q with %v, want %q", r.Address, r.Step, r.Err, steps[i])
		}
	}

	r := reports[0]
	if !slices.Equal(r.Addresses, []netip.Addr{netip.MustParseAddr("127.0.0.1")}) {
		t.Errorf("addresses %v", r.Addresses)
	}
	if r.Connect <= 0 || r.TLS <= 0 || r.RTT <= 0 || r.Probe <= 0 {
		t.Errorf("times %v %v %v %v", r.Connect, r.TLS, r.RTT, r.Probe)
	}
	if r.Version != "1.4" || !slices.Contains(r.Versions, "1.0") || !slices.Contains(r.Operations, "Get") || r.KeyState != keys.Active {
		t.Errorf("version %q of %v, operations %v, key %v", r.Version, r.Versions, r.Operations, r.KeyState)
	}
	if r.Server.Subject != "CN=foreign" || r.Client.Subject != "CN=client" || r.Client.File != config.Cert ||
		r.CA.Subject != "CN=test CA" || r.CA.File != config.CA || r.Server.NotAfter.IsZero() {
		t.Errorf("certificates %+v %+v %+v", r.Server, r.Client, r.CA)
	}
	if r := reports[1]; r.Server == nil || r.Server.Subject != "CN=foreign" || !strings.Contains(r.Err.Error(), "not signed by the CA") {
		t.Errorf("of the untrusted server: %+v, %v", r.Server, r.Err)
	}
	if r := reports[2]; !errors.Is(r.Err, keys.ErrNotFound) && !strings.Contains(r.Err.Error(), "ItemNotFound") || r.Version == "" {
		t.Errorf("of the server without the key: %+v", r)
	}
	if _, ok := errors.AsType[net.Error](reports[7].Err); !ok {
		t.Errorf("of the name that does not resolve: %v", reports[7].Err)
	}
}

// TestCheckCA: the report names the certificate above a server's own that ends first, wherever
// the certificate lies.
func TestCheckCA(t *testing.T) {
	t.Parallel()
	p := newPKI(t)
	begin, soon := time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	between := p.under(t, begin, soon)
	ca, err := os.ReadFile(p.ca)
	if err != nil {
		t.Fatal(err)
	}
	overwrite(t, p.ca, string(newPKI(t).under(t, begin, soon.Add(time.Hour)).chain)+string(ca)) // a bundle
	for _, c := range []struct {
		name          string
		by            *pki
		subject, file string
	}{
		{"second in the file", p, "CN=test CA", p.ca},
		{"intermediate", between, "CN=intermediate", ""},
	} {
		f := &foreign{vault: newVault()}
		f.startAs(t, c.by, "127.0.0.1:0", leaf{})
		r := open(t, p.config(t, f.address)).Check(t.Context(), nil)[0]
		if r.CA == nil || r.CA.Subject != c.subject || r.CA.File != c.file {
			t.Errorf("%s: %+v, want %s in %q", c.name, r.CA, c.subject, c.file)
		}
	}
}

func TestCheckWithoutProbe(t *testing.T) {
	t.Parallel()
	p := newPKI(t)
	f := newForeign(t, p, newVault())
	if r := open(t, p.config(t, f.address)).Check(t.Context(), nil)[0]; r.Step != "" || r.Err != nil || r.Probe != 0 {
		t.Errorf("%+v", r)
	}
}

func TestDescribe(t *testing.T) {
	t.Parallel()
	provider := open(t, startDevKMS(t))
	name := label()
	kek, err := provider.Create(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	defer kek.Wipe()
	d, err := provider.Describe(t.Context(), kek.ID)
	if err != nil || d.ID != kek.ID || d.Name != name || d.State != keys.Active || d.Initial.IsZero() || d.Activation.Before(d.Initial) || !d.Destroy.IsZero() {
		t.Errorf("%+v, %v", d, err)
	}
	if err := provider.Revoke(t.Context(), kek.ID, kmip.KeyCompromise); err != nil {
		t.Fatal(err)
	}
	if d, err = provider.Describe(t.Context(), kek.ID); err != nil || d.State != keys.Compromised || d.Compromise.IsZero() {
		t.Errorf("%+v, %v", d, err)
	}
	if _, err := provider.Describe(t.Context(), "none"); !errors.Is(err, keys.ErrNotFound) {
		t.Errorf("%v, want %v", err, keys.ErrNotFound)
	}
}

// TestCredential: user name and password go with every request.
func TestCredential(t *testing.T) {
	t.Parallel()
	p := newPKI(t)
	f := newForeign(t, p, newVault())
	config := p.config(t, f.address)
	config.Username, config.PasswordFile = "host-7", p.write(t, "password", "not used", nil)
	overwrite(t, config.PasswordFile, "s3cret word\r\nanother line\n")
	create(t, open(t, config))
	if got := f.username.Load(); got == nil || *got != "host-7:s3cret word" {
		t.Errorf("the server saw credential %v", got)
	}
}
