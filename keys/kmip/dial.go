package kmip

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"time"

	"vmcryptfs/keys"
)

const (
	// stagger is the pause before the next address is tried beside the addresses before (RFC 8305
	// §5, Connection Attempt Delay).
	stagger = 250 * time.Millisecond
	// mostAddresses bounds the addresses of one server that are tried.
	mostAddresses = 8
)

// handshake dials a server and shakes hands. The addresses of the server's name race, the
// handshake included: an address that is silent, refuses, or is another server does not keep the
// caller from the next.
func (c *Config) handshake(ctx context.Context, addr string, id *identity) (*tls.Conn, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, &classified{keys.ErrUnreachable, err}
	}
	found, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, &classified{keys.ErrUnreachable, plainDial(err)}
	}
	return c.handshakeAny(ctx, found, port, addr, id)
}

// handshakeAny is handshake with found, the addresses of the name in addr.
func (c *Config) handshakeAny(ctx context.Context, found []netip.Addr, port, addr string, id *identity) (*tls.Conn, error) {
	return race(ctx, raceOrder(found), func(ctx context.Context, at netip.Addr) (*tls.Conn, error) {
		raw, err := dial(ctx, at, port)
		if err != nil {
			return nil, &classified{keys.ErrUnreachable, plainDial(err)}
		}
		return c.secure(ctx, raw, addr, id)
	})
}

func dial(ctx context.Context, at netip.Addr, port string) (net.Conn, error) {
	var dialer net.Dialer
	return dialer.DialContext(ctx, "tcp", net.JoinHostPort(at.String(), port))
}

// raceOrder returns the order in which addresses are tried: as the resolver sorted them, but with
// alternating families (RFC 8305 §4), each address once.
func raceOrder(found []netip.Addr) (order []netip.Addr) {
	var first, second []netip.Addr
	seen := map[netip.Addr]bool{}
	for _, a := range found {
		a = a.Unmap()
		switch {
		case seen[a]:
		case a.Is4() == found[0].Unmap().Is4():
			first = append(first, a)
		default:
			second = append(second, a)
		}
		seen[a] = true
	}
	for i := range max(len(first), len(second)) {
		order = append(order, first[min(i, len(first)):min(i+1, len(first))]...)
		order = append(order, second[min(i, len(second)):min(i+1, len(second))]...)
	}
	return order[:min(len(order), mostAddresses)]
}

// A runner is the outcome of one address.
type runner[C io.Closer] struct {
	at   netip.Addr
	conn C
	err  error
}

// race connects to one address after the other, each a moment after the one before, or as soon as
// the one before has failed. The first connection wins; when race returns, the others have ended.
// The error has the outcome of each address.
func race[C io.Closer](ctx context.Context, order []netip.Addr, connect func(context.Context, netip.Addr) (C, error)) (winner C, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan runner[C])
	next := time.NewTimer(0)
	defer next.Stop()
	won := false
	var lost []runner[C]
	started, ended := 0, 0
	more := func() bool { return !won && started < len(order) && (started == 0 || ctx.Err() == nil) }
	for ended < started || more() {
		select {
		case <-next.C:
			if !more() {
				continue
			}
			at := order[started]
			go func() {
				conn, err := connect(ctx, at)
				done <- runner[C]{at, conn, err}
			}()
			started++
			next.Reset(stagger)
		case r := <-done:
			ended++
			switch {
			case r.err != nil:
				lost = append(lost, r)
				next.Reset(0)
			case won:
				r.conn.Close()
			default:
				winner, won = r.conn, true
				cancel()
			}
		}
	}
	if won {
		return winner, nil
	}
	return winner, raceError(lost)
}

// raceError joins the outcomes of a server's addresses: a refusal, if an address refused.
func raceError[C io.Closer](lost []runner[C]) error {
	switch len(lost) {
	case 0:
		return &classified{keys.ErrUnreachable, errors.New("its name has no address")}
	case 1:
		return lost[0].err
	}
	kind := keys.ErrUnreachable
	var said []string
	var errs []error
	for _, r := range lost {
		if errors.Is(r.err, keys.ErrRefused) {
			kind = keys.ErrRefused
		}
		said = append(said, fmt.Sprintf("%s: %v", r.at, r.err))
		errs = append(errs, r.err)
	}
	return &classified{kind, &allLost{strings.Join(said, ", "), errs}}
}

// An allLost is the errors of all addresses of a server.
type allLost struct {
	said string
	errs []error
}

func (a *allLost) Error() string   { return a.said }
func (a *allLost) Unwrap() []error { return a.errs }
