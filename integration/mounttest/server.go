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

// Server is `vmcryptfs devkms serve`: a key server that can go away by itself, unlike
// the one inside a --dev mount.
type Server struct {
	T    testing.TB
	Dir  string
	Addr string
	cmd  *exec.Cmd // nil: down
}

// Env names the file that Config names.
func (s *Server) Env() []string { return []string{"VMCRYPTFS_KMS=" + s.Config()} }

// Flags is none.
func (s *Server) Flags() []string { return nil }

// Config is what the server leaves for clients.
func (s *Server) Config() string { return filepath.Join(s.Dir, "kms.toml") }

// StartKMS serves a new, empty key store on a loopback port that it keeps for its life.
func StartKMS(t testing.TB) *Server {
	t.Helper()
	s := &Server{T: t, Dir: filepath.Join(t.TempDir(), "kms"), Addr: FreeAddress(t)}
	t.Cleanup(s.Stop)
	s.Start()
	return s
}

// FreeAddress is a loopback address for a server that comes and goes: nobody listens on its
// port, and no connection gets that port for its own end while the server is away, which
// are from 32768 on.
func FreeAddress(t testing.TB) string {
	t.Helper()
	for {
		address := fmt.Sprintf("127.0.0.1:%d", 20000+rand.IntN(12000))
		l, err := net.Listen("tcp", address)
		if errors.Is(err, unix.EADDRINUSE) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		return address
	}
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
		if _, err := os.Stat(s.Config()); err != nil {
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

// Hang stops the server from answering; its port still accepts connections.
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
