package kmip

import (
	"context"
	"net/netip"
)

// HandshakeAny shakes hands with the server of a configuration, whose name has the addresses
// found, and hangs up.
func HandshakeAny(ctx context.Context, c Config, found []netip.Addr, port string) error {
	id, err := (&identities{config: &c}).get()
	if err != nil {
		return err
	}
	conn, err := c.handshakeAny(ctx, found, port, c.Servers[0], id)
	if err == nil {
		conn.NetConn().Close()
	}
	return err
}
