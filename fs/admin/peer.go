package admin

import (
	"context"
	"errors"
	"net"

	"golang.org/x/sys/unix"
)

// Peer is the process that asked for something over the control socket, as the kernel noted
// it at the connection (unix(7), SO_PEERCRED).
type Peer struct {
	UID uint32 `json:"uid"`
	PID int32  `json:"pid"` // 0: of another pid namespace
}

// peerConn is a connection with its peer.
type peerConn struct {
	*net.UnixConn
	peer Peer
}

// peerKey is where a request's context has its Peer.
type peerKey struct{}

// withPeer has the requests of a connection know who makes them (http.Server.ConnContext).
func withPeer(ctx context.Context, c net.Conn) context.Context {
	if c, ok := c.(*peerConn); ok {
		return context.WithValue(ctx, peerKey{}, c.peer)
	}
	return ctx
}

// PeerOf tells who asks, of the context that a Source's method got from a Server.
func PeerOf(ctx context.Context) (p Peer, ok bool) {
	p, ok = ctx.Value(peerKey{}).(Peer)
	return p, ok
}

// peerOf asks the kernel who connected.
func peerOf(c *net.UnixConn) (Peer, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return Peer{}, err
	}
	var cred *unix.Ucred
	var credErr error
	err = raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err = errors.Join(err, credErr); err != nil {
		return Peer{}, err
	}
	return Peer{UID: cred.Uid, PID: cred.Pid}, nil
}
