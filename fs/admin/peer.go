package admin

import (
	"context"
	"errors"
	"net"

	"golang.org/x/sys/unix"

	"vmcryptfs/fs/work"
)

// peerConn is a connection together with its peer.
type peerConn struct {
	*net.UnixConn
	peer work.Peer
}

// peerKey is the key of the work.Peer in the context of a request.
type peerKey struct{}

// withPeer adds the peer of connection c to ctx (http.Server.ConnContext).
func withPeer(ctx context.Context, c net.Conn) context.Context {
	if c, ok := c.(*peerConn); ok {
		return context.WithValue(ctx, peerKey{}, c.peer)
	}
	return ctx
}

// PeerOf gives the process that made a request, from the context of a Source's method.
func PeerOf(ctx context.Context) (p work.Peer, ok bool) {
	p, ok = ctx.Value(peerKey{}).(work.Peer)
	return p, ok
}

// peerOf asks the kernel for the process that connected.
func peerOf(c *net.UnixConn) (work.Peer, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return work.Peer{}, err
	}
	var cred *unix.Ucred
	var credErr error
	err = raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err = errors.Join(err, credErr); err != nil {
		return work.Peer{}, err
	}
	return work.Peer{UID: cred.Uid, PID: cred.Pid}, nil
}
