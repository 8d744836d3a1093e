package kmip_test

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"vmcryptfs/keys"
	"vmcryptfs/keys/kmip"
)

// A logbook is a log readable during writes.
type logbook struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logbook) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *logbook) count(what string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.text.String(), what)
}

// openLogged is open with a log.
func openLogged(t *testing.T, c kmip.Config) (*kmip.Provider, *logbook) {
	t.Helper()
	log := &logbook{}
	p, err := kmip.Open(c, slog.New(slog.NewTextHandler(log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p, log
}

// TestAskServers: a server without requests is known to be dead before a need. The log has the
// server's end and return once each. A server just used is left alone.
func TestAskServers(t *testing.T) {
	t.Parallel()
	p := newPKI(t)
	first := newForeign(t, p, newVault())
	second := newForeign(t, p, first.vault)
	provider, log := openLogged(t, p.config(t, first.address, second.address))
	create(t, provider)
	if h := provider.Health()[1]; h.State != keys.ServerUnknown || !h.Since.IsZero() {
		t.Errorf("never used: %+v, want %s", h, keys.ServerUnknown)
	}
	second.stop()
	sessions := first.accepted.Load()
	for range 3 {
		provider.AskServers(t.Context())
	}
	if h := provider.Health()[1]; h.State != keys.ServerDown || h.OK || h.LastError == "" || h.Since.IsZero() {
		t.Errorf("dead: %+v, want %s", h, keys.ServerDown)
	}
	if n := first.accepted.Load() - sessions; n != 0 {
		t.Errorf("a server that was just used was asked on %d sessions more", n)
	}
	second.start(t, p, second.address)
	awaitHealth(t, provider.Health, 1)
	if h := provider.Health()[1]; h.State != keys.ServerOK {
		t.Errorf("back: %+v, want %s", h, keys.ServerOK)
	}
	await(t, "the log", nil, func() bool { return log.count("KMS server answers again") > 0 })
	if n, m := log.count("KMS server does not serve"), log.count("KMS server answers again"); n != 1 || m != 1 {
		t.Errorf("logged %d times that it is down and %d times that it is back, want once each", n, m)
	}
}

// TestAskCancelled: an answer without a waiter changes no server's condition.
func TestAskCancelled(t *testing.T) {
	t.Parallel()
	p := newPKI(t)
	f := newForeign(t, p, newVault())
	f.deaf.Store(true)
	provider := open(t, p.config(t, f.address))
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	done := make(chan struct{})
	go func() { provider.AskServers(ctx); close(done) }()
	await(t, "a connection", nil, func() bool { return f.accepted.Load() > 0 })
	cancel()
	<-done
	if h := provider.Health()[0]; h.State != keys.ServerUnknown {
		t.Errorf("%+v, want %s", h, keys.ServerUnknown)
	}
}
