package kmip_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"vmcryptfs/keys"
	"vmcryptfs/keys/kmip"
)

// drops listens at a loopback address and lets the queue of connections fill up: later clients
// get no answer.
func drops(t *testing.T, host, port string) {
	t.Helper()
	var config net.ListenConfig
	l, err := config.Listen(t.Context(), "tcp", net.JoinHostPort(host, port))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	raw, err := l.(*net.TCPListener).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := raw.Control(func(fd uintptr) { err = syscall.Listen(int(fd), 0) }); err != nil {
		t.Fatal(err)
	}
	for range 8 {
		c, err := net.DialTimeout("tcp", l.Addr().String(), 200*time.Millisecond)
		if err != nil {
			return // full
		}
		t.Cleanup(func() { c.Close() })
	}
	t.Fatal("the queue of connections does not fill up")
}

// accepts listens at a loopback address and stays silent to every client.
func accepts(t *testing.T, host, port string) {
	t.Helper()
	l, err := net.Listen("tcp", net.JoinHostPort(host, port))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
}

// TestAddressesRace: of the addresses of a name the first are silent in every way; the last
// one serves, long before the time of a server is over.
func TestAddressesRace(t *testing.T) {
	t.Parallel()
	p := newPKI(t)
	f := newForeign(t, p, newVault())
	_, port, _ := net.SplitHostPort(f.address)
	drops(t, "127.0.0.2", port)
	accepts(t, "127.0.0.3", port)
	refuses := "127.0.0.4"
	for name, hosts := range map[string][]string{
		"drops":          {"127.0.0.2", "127.0.0.1"},
		"accepts":        {"127.0.0.3", "127.0.0.1"},
		"refuses":        {refuses, "127.0.0.1"},
		"all of them":    {"127.0.0.2", "127.0.0.3", refuses, "127.0.0.1"},
		"the same twice": {"127.0.0.1", "127.0.0.1"},
	} {
		t.Run(name, func(t *testing.T) {
			var found []netip.Addr
			for _, h := range hosts {
				found = append(found, netip.MustParseAddr(h))
			}
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			if err := kmip.HandshakeAny(ctx, p.config(t, "localhost:"+port), found, port); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestAddressesFail: the error has the outcome of each address.
func TestAddressesFail(t *testing.T) {
	t.Parallel()
	p := newPKI(t)
	f := newForeign(t, p, newVault())
	_, port, _ := net.SplitHostPort(f.address)
	f.stop()
	accepts(t, "127.0.0.3", port)
	config := p.config(t, "localhost:"+port)
	ctx, cancel := context.WithTimeout(t.Context(), hungTimeout)
	defer cancel()
	found := []netip.Addr{netip.MustParseAddr("127.0.0.3"), netip.MustParseAddr("127.0.0.1")}
	err := kmip.HandshakeAny(ctx, config, found, port)
	if !errors.Is(err, keys.ErrUnreachable) || !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("%v, want %v", err, keys.ErrUnreachable)
	}
	for _, part := range []string{"127.0.0.3: ", "127.0.0.1: connect: "} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("%v has no %q", err, part)
		}
	}
}
