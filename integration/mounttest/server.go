package mounttest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// Server is `vmcryptfs devkms serve`: a key server that can go away by itself, unlike the server
// inside a --dev mount.
type Server struct {
	T    testing.TB
	Dir  string
	Addr string
	// Patient clients give the server the time needed on a busy host. Without Patient, clients
	// have the product's bounds, for tests of the bounds.
	Patient bool
	cmd     *exec.Cmd // nil: down
}

// Env names the file returned by Config.
func (s *Server) Env() []string { return []string{"VMCRYPTFS_KMS=" + s.Config()} }

// Flags is none.
func (s *Server) Flags() []string { return nil }

// Config returns the server's kms.toml for clients, or a copy with a timeout.
func (s *Server) Config() string {
	if s.Patient {
		return s.Dir + ".toml"
	}
	return filepath.Join(s.Dir, "kms.toml")
}

// StartKMS serves a new, empty key store on a loopback port, the same port for the server's life.
func StartKMS(t testing.TB) *Server {
	t.Helper()
	s := &Server{T: t, Dir: filepath.Join(t.TempDir(), "kms"), Addr: FreeAddress(t)}
	t.Cleanup(s.Stop)
	s.Start()
	config, err := os.ReadFile(s.Config())
	if err != nil {
		t.Fatal(err)
	}
	s.Patient = true
	// The file's only table is the provider's.
	if err := os.WriteFile(s.Config(), append(config, "timeout = \"30s\"\n"...), 0o600); err != nil {
		t.Fatal(err)
	}
	return s
}

// FreeAddress returns a loopback address for a server that comes and goes. Until the test ends no
// other process is given the port, and no connection gets the port for its own end while the
// server is away: such ports are from 32768 on.
func FreeAddress(t testing.TB) string {
	t.Helper()
	for {
		port := 20000 + rand.IntN(12000)
		err := reserve(t, port)
		if err == nil {
			return fmt.Sprintf("127.0.0.1:%d", port)
		}
		if !errors.Is(err, unix.EADDRINUSE) {
			t.Fatalf("reserve port %d: %v", port, err)
		}
	}
}

// reserve binds a socket that never listens to a port. reserve sets SO_REUSEADDR only after the
// bind: so servers, which bind with SO_REUSEADDR, get the port, and another reserve does not.
func reserve(t testing.TB, port int) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	err = unix.Bind(fd, &unix.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}})
	if err == nil {
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	}
	if err != nil {
		return errors.Join(err, unix.Close(fd))
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	return nil
}

// Start serves the store, again after Stop.
func (s *Server) Start() {
	s.T.Helper()
	s.cmd = exec.Command(Program(s.T), "devkms", "serve", "--dir", s.Dir, "--listen", s.Addr)
	s.cmd.Stderr = os.Stderr
	if err := s.cmd.Start(); err != nil {
		s.T.Fatal(err)
	}
	Eventually(s.T, "the key server listens", Patience, func() error {
		if _, err := os.Stat(filepath.Join(s.Dir, "kms.toml")); err != nil {
			return err
		}
		c, err := net.Dial("tcp", s.Addr)
		if err == nil {
			err = c.Close()
		}
		return err
	})
}

// Stop ends the server; idempotent.
func (s *Server) Stop() {
	if s.cmd == nil {
		return
	}
	s.signal(unix.SIGCONT)
	s.signal(unix.SIGKILL)
	_ = s.cmd.Wait()
	s.cmd = nil
}

// Hang stops the server from answering; the port still accepts connections.
func (s *Server) Hang() { s.signal(unix.SIGSTOP) }

// Wake ends Hang.
func (s *Server) Wake() { s.signal(unix.SIGCONT) }

func (s *Server) signal(sig unix.Signal) {
	if err := s.cmd.Process.Signal(sig); err != nil {
		s.T.Errorf("signal key server: %v", err)
	}
}

// NewServed makes and mounts a datastore whose keys are at s.
func NewServed(t testing.TB, s *Server, options ...string) *Datastore {
	t.Helper()
	d := NewUnmounted(t, s, options...)
	d.Must("init", "--provider", "dev", d.Backing)
	d.Mount()
	return d
}
