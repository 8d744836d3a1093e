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

// TestOperationNamed: an error names the failed operation, even one of several needed.
func TestOperationNamed(t *testing.T) {
	t.Parallel()
	p := newPKI(t)
	f := newForeign(t, p, newVault())
	provider := open(t, p.config(t, f.address))
	kek := create(t, provider)
	f.mute.Store(true)
	for name, do := range map[string]func() error{
		"get":    func() error { _, _, err := provider.Get(t.Context(), kek.ID, nil); return err },
		"create": func() error { _, err := provider.Create(t.Context(), label()); return err },
		"state":  func() error { _, err := provider.State(t.Context(), kek.ID); return err },
	} {
		err := do()
		if told, ok := errors.AsType[*kmip.Error](err); !ok || told.Operation != "Get Attributes" || !errors.Is(err, keys.ErrRefused) {
			t.Errorf("%s: %v; want Get Attributes refused", name, err)
		}
	}
}

// TestPinnedIsAsked: a server with a configured version is never asked for versions, and its
// condition is known all the same.
func TestPinnedIsAsked(t *testing.T) {
	t.Parallel()
	p := newPKI(t)
	f := newForeign(t, p, newVault())
	config := p.config(t, f.address)
	config.Version = "1.4"
	provider := open(t, config)
	f.trouble.Store(&trouble{ovh.OperationDiscoverVersions, closesAtOnce})
	provider.AskServers(t.Context())
	if h := provider.Health()[0]; !h.OK || h.Version != "1.4" {
		t.Errorf("health %+v", h)
	}
	f.stop()
	if _, _, err := provider.Get(t.Context(), "1", nil); !errors.Is(err, keys.ErrUnreachable) {
		t.Errorf("of a server that ended: %v", err)
	}
	f.trouble.Store(&trouble{ovh.OperationGetAttributes, hangs})
	f.start(t, p, f.address)
	hung := config
	hung.Timeout = time.Second
	asker := open(t, hung)
	asker.AskServers(t.Context())
	for _, h := range slices.Concat(asker.Health(), provider.Health()) { // the latter's probes hang, too
		if h.State != keys.ServerDown {
			t.Errorf("one that accepts and does not answer is %s: %+v", h.State, h)
		}
	}
	f.stop()
	f.trouble.Store(nil)
	f.start(t, p, f.address)
	await(t, "its return", nil, func() bool { return provider.Health()[0].OK })
}
