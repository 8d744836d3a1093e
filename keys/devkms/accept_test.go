package devkms

import (
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// tired is a listener without a descriptor for the first client.
type tired struct {
	net.Listener
	rested bool
}

func (l *tired) Accept() (net.Conn, error) {
	if !l.rested {
		l.rested = true
		return nil, &net.OpError{Op: "accept", Net: "tcp", Err: os.NewSyscallError("accept4", unix.EMFILE)}
	}
	return l.Listener.Accept()
}

// TestAcceptAfterFailure: a client refused by accept is accepted later.
func TestAcceptAfterFailure(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{log: slog.New(slog.DiscardHandler), conns: map[net.Conn]struct{}{}, slots: make(chan struct{}, maxSessions), listener: &tired{Listener: listener}}
	s.running.Go(func() { s.accept(&tls.Config{}) })
	defer s.Close()
	conn, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	if _, err := conn.Write([]byte("no handshake, to be refused")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, conn); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("nobody accepts the client")
	}
}
