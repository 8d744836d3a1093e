package kmip

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"syscall"
	"time"

	"github.com/gemalto/kmip-go/kmip14"

	"vmcryptfs/keys"
	"vmcryptfs/keys/kmip/wire"
)

// A classified is a failure of a session or a server with its meaning for the caller.
type classified struct {
	kind error // a sentinel of package keys
	err  error
}

func (c *classified) Error() string   { return c.err.Error() }
func (c *classified) Unwrap() []error { return []error{c.kind, c.err} }

// A lostError reports a session broken during a request. The server may have done the request: a
// TLS connection does not report how much of a failed write went out.
type lostError struct{ err error }

func (l *lostError) Error() string { return l.err.Error() }
func (l *lostError) Unwrap() error { return l.err }

// A callError adds the failed operation to an error.
type callError struct {
	operation kmip14.Operation
	err       error
}

func (c *callError) Error() string { return c.err.Error() }
func (c *callError) Unwrap() error { return c.err }

// A session is one TLS connection with an agreed version. One goroutine at a time uses a session.
// After any error but a *result the session is broken and must be closed.
type session struct {
	conn     *tls.Conn
	config   *Config
	host     string
	identity *identity
	version  wire.Version
	batch    uint64    // number of the last request, to match the answer
	answered int       // length of the last answer
	idle     time.Time // start of idleness
	reused   bool      // was idle before
	spent    bool      // a request's time ended during the request: the deadline may strike later
}

// open dials and agrees on a version.
func (c *Config) open(ctx context.Context, addr string, id *identity) (*session, error) {
	conn, err := c.handshake(ctx, addr, id)
	if err != nil {
		return nil, err
	}
	s := newSession(conn, c, c.nameOf(addr), id)
	if err := s.negotiate(ctx); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

func newSession(conn *tls.Conn, c *Config, host string, id *identity) *session {
	return &session{conn: conn, config: c, host: host, identity: id}
}

func (s *session) close() { s.conn.NetConn().Close() }

// call sends a request and passes the payload of the answer to read, within the time of ctx. The
// answer's buffer is wiped afterwards. The error is a *result for a refusal, read's error, or a
// *lostError.
func (s *session) call(ctx context.Context, r request, read func(payload wire.Item) error) (err error) {
	defer func() {
		if err != nil {
			err = &callError{r.operation, err}
		}
	}()
	s.batch++
	frame, err := s.encode(r)
	if err != nil {
		return err
	}
	defer clear(frame)
	answer, err := s.exchange(ctx, frame)
	if err != nil {
		return err
	}
	defer clear(answer)
	s.answered = len(answer)
	return wire.Decode(answer, func(message wire.Item) error {
		payload, err := s.match(r, message)
		if err != nil {
			return err
		}
		return read(payload)
	})
}

// exchange writes a request and reads the answer.
func (s *session) exchange(ctx context.Context, frame []byte) ([]byte, error) {
	deadline, _ := ctx.Deadline()
	if err := s.conn.SetDeadline(deadline); err != nil {
		return nil, &lostError{err}
	}
	stop := context.AfterFunc(ctx, func() { _ = s.conn.SetDeadline(time.Unix(1, 0)) })
	defer func() {
		if !stop() {
			s.spent = true // the deadline may strike at any time now, even during the next request
		}
	}()
	if _, err := s.conn.Write(frame); err != nil {
		return nil, &lostError{s.explain(ctx, s.pendingAlert(err))}
	}
	answer, err := wire.ReadFrame(s.conn, kmip14.TagResponseMessage)
	if err != nil {
		return nil, &lostError{s.explain(ctx, err)}
	}
	return answer, nil
}

// explain says in words why a session broke.
func (s *session) explain(ctx context.Context, err error) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		return &classified{keys.ErrUnreachable, ctx.Err()}
	}
	if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() {
		return &classified{keys.ErrUnreachable, fmt.Errorf("no answer in time: %w", err)}
	}
	if refusal, ok := errors.AsType[*net.OpError](err); ok && refusal.Op == "remote error" {
		return s.config.explain(err, s.host, s.identity, true, true)
	}
	return &classified{keys.ErrUnreachable, fmt.Errorf("the session broke: %w", err)}
}

// dead reports whether the server has closed an idle session, or has sent bytes without a
// request; the check never waits for I/O.
func (s *session) dead() bool {
	raw, err := s.conn.NetConn().(*heardConn).Conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		return true
	}
	quiet := false
	err = raw.Control(func(fd uintptr) {
		var b [1]byte
		_, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		quiet = errors.Is(err, syscall.EAGAIN)
	})
	return err != nil || !quiet
}
