package devkms

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"vmcryptfs/byname"
)

// ProviderName is the provider's name in the kms.toml written by Start.
const ProviderName = "dev"

// Server is a running development KMS.
type Server struct {
	dir      string
	log      *slog.Logger
	lock     *os.File // holds the directory
	store    *store
	listener net.Listener
	addr     string
	slots    chan struct{}  // one for each session, maxSessions
	running  sync.WaitGroup // the accept loop and the sessions

	mu     sync.Mutex // guards conns and closed
	conns  map[net.Conn]struct{}
	closed bool
}

// Start keeps keys in dir, which must be private (package byname), makes the missing files there
// (ca.pem, client.pem, client.key, kms.toml) and serves on listen, a loopback address. An empty
// listen means 127.0.0.1 with the port of the last time if free, else any port, written to
// kms.toml. ctx bounds the start alone; Close ends the server.
func Start(ctx context.Context, dir, listen string, log *slog.Logger) (s *Server, err error) {
	// Root may run the server below a directory of another user; that user must not choose where
	// the server writes.
	if dir, err = byname.MakePrivatePath(dir, 0o700); err != nil {
		return nil, fmt.Errorf("development KMS: %w", err)
	}
	s = &Server{dir: dir, log: log, conns: map[net.Conn]struct{}{}, slots: make(chan struct{}, maxSessions)}
	defer func() {
		if err != nil {
			s.Close()
			s, err = nil, fmt.Errorf("development KMS in %s: %w", dir, err)
		}
	}()
	if s.lock, err = lockDir(dir); err != nil {
		return s, err
	}
	if s.store, err = openStore(filepath.Join(dir, "keys")); err != nil {
		return s, err
	}
	certs, err := openAuthority(dir)
	if err != nil {
		return s, err
	}
	if s.listener, err = s.listen(ctx, listen); err != nil {
		return s, err
	}
	s.addr = s.listener.Addr().String()
	if err := s.writeConfig(); err != nil {
		return s, err
	}
	s.running.Go(func() { s.accept(certs.server()) })
	return s, nil
}

// listen opens the listener on a loopback address.
func (s *Server) listen(ctx context.Context, address string) (net.Listener, error) {
	var config net.ListenConfig
	if address == "" {
		if last := s.lastAddress(); last != "" {
			if l, err := config.Listen(ctx, "tcp", last); err == nil {
				return l, nil
			}
		}
		address = "127.0.0.1:0"
	}
	if err := checkLoopback(address); err != nil {
		return nil, err
	}
	return config.Listen(ctx, "tcp", address)
}

// ErrAddress reports a listen address refused by Start: malformed, or reachable from other hosts.
var ErrAddress = errors.New("not a loopback host:port (its keys lie in clear: 127.0.0.1, ::1 or localhost)")

// checkLoopback refuses an address reachable from other hosts.
func checkLoopback(address string) error {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("listen on %q: %w", address, ErrAddress)
	}
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return fmt.Errorf("listen on %q: %w", address, ErrAddress)
	}
	return nil
}

// Addr returns the server's address, host:port.
func (s *Server) Addr() string { return s.addr }

// ConfigPath is the kms.toml for clients.
func (s *Server) ConfigPath() string { return filepath.Join(s.dir, "kms.toml") }

// acceptPause is the time between two attempts to accept a client while accepting fails, as
// without a free descriptor.
const acceptPause = 100 * time.Millisecond

// accept starts a session for each client until the listener closes.
func (s *Server) accept(config *tls.Config) {
	for {
		conn, err := s.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			s.log.Error("development KMS cannot accept a client", "error", err)
			time.Sleep(acceptPause)
			continue
		}
		if !s.admit(conn) {
			conn.Close()
			continue
		}
		s.running.Go(func() {
			defer s.dismiss(conn)
			s.serve(tls.Server(conn, config))
		})
	}
}

// admit takes a client in unless there are too many or the server closes.
func (s *Server) admit(conn net.Conn) bool {
	select {
	case s.slots <- struct{}{}:
	default:
		s.log.Warn("development KMS refuses a client", "sessions", maxSessions)
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		<-s.slots
		return false
	}
	s.conns[conn] = struct{}{}
	return true
}

func (s *Server) dismiss(conn net.Conn) {
	conn.Close()
	s.mu.Lock()
	delete(s.conns, conn)
	s.mu.Unlock()
	<-s.slots
}

// Close ends all sessions and waits for their goroutines; idempotent.
func (s *Server) Close() error {
	s.mu.Lock()
	first := !s.closed
	s.closed = true
	for conn := range s.conns {
		conn.Close()
	}
	s.mu.Unlock()
	var err error
	if s.listener != nil && first {
		err = s.listener.Close()
	}
	s.running.Wait()
	if s.lock != nil && first {
		err = errors.Join(err, s.lock.Close())
	}
	return err
}
