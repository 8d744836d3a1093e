package kmip_test

import (
	"net"
	"slices"
	"testing"
	"time"

	ovh "github.com/ovh/kmip-go"

	"vmcryptfs/keys/kmip"
)

// TestReconfigure: a provider changes to other servers under load: requests under way end well,
// sessions to the old servers end, a wrong configuration changes nothing.
func TestReconfigure(t *testing.T) {
	t.Parallel()
	p := newPKI(t)
	old := newForeign(t, p, newVault())
	next := newForeign(t, p, old.vault)
	config := p.config(t, old.address)
	provider := open(t, config)
	kek := create(t, provider)

	answers := make(chan struct{})
	old.trouble.Store(&trouble{ovh.OperationGet, waits(answers)})
	got := make(chan error, 1)
	go func() {
		k, _, err := provider.Get(t.Context(), kek.ID, nil)
		if err == nil {
			k.Wipe()
		}
		got <- err
	}()
	<-answers // the server is answering
	changed := config
	changed.Servers, changed.Timeout, changed.Version = []string{next.address}, config.Timeout-time.Second, "1.2"
	changes, err := provider.Reconfigure(changed)
	var keys []string
	for _, c := range changes {
		keys = append(keys, c.Key)
	}
	if want := []string{"servers", "version", "timeout"}; err != nil || !slices.Equal(keys, want) {
		t.Fatalf("changed %v, %v; want %v", changes, err, want)
	}
	if c := changes[0]; c.Old != old.address || c.New != next.address {
		t.Errorf("%s", c)
	}
	awaitKey(t, provider, kek)
	if n := next.accepted.Load(); n != 1 {
		t.Errorf("%d sessions to the new server, want 1", n)
	}
	answers <- struct{}{}
	if err := <-got; err != nil {
		t.Errorf("what was under way: %v", err)
	}
	await(t, "the end of the sessions to the old server", nil, func() bool {
		old.mu.Lock()
		defer old.mu.Unlock()
		return old.serving == 0
	})
	if h := provider.Health(); len(h) != 1 || h[0].Address != next.address || h[0].Version != "1.2" {
		t.Errorf("health %+v", h)
	}

	for name, edit := range map[string]func(*kmip.Config){
		"no server":      func(c *kmip.Config) { c.Servers = nil },
		"no certificate": func(c *kmip.Config) { c.Cert = "/nonexistent.pem" },
	} {
		wrong := changed
		edit(&wrong)
		if changes, err := provider.Reconfigure(wrong); err == nil || len(changes) > 0 {
			t.Errorf("%s: %v, %v", name, changes, err)
		}
	}
	if changes, err := provider.Reconfigure(changed); err != nil || len(changes) > 0 {
		t.Errorf("the same again: %v, %v", changes, err)
	}
	awaitKey(t, provider, kek)
}

// TestReconfigureKeepsHealth: the known condition of a remaining server is not forgotten, and a
// down server is still probed.
func TestReconfigureKeepsHealth(t *testing.T) {
	t.Parallel()
	p := newPKI(t)
	one := newForeign(t, p, newVault())
	two := newForeign(t, p, one.vault)
	config := p.config(t, one.address, two.address)
	provider := open(t, config)
	kek := create(t, provider)
	one.stop()
	awaitKey(t, provider, kek)
	config.Timeout -= time.Second
	if _, err := provider.Reconfigure(config); err != nil {
		t.Fatal(err)
	}
	if h := provider.Health(); h[0].OK || h[0].LastError == "" || !h[1].OK {
		t.Errorf("health %+v", h)
	}
	one.start(t, p, one.address)
	await(t, "the return of the first", nil, func() bool { return provider.Health()[0].OK })
}

// waits sends on due when an answer is due, and writes the answer once the value was received, or
// never when the server ends.
func waits(due chan struct{}) func(*foreign, net.Conn, []byte) error {
	return func(f *foreign, conn net.Conn, frame []byte) error {
		due <- struct{}{}
		select {
		case <-due:
		case <-f.ended:
			return errSpoilt
		}
		_, err := conn.Write(frame)
		return err
	}
}
