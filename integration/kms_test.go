package integration

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vmcryptfs/integration/mounttest"
)

// kmsServer is `vmcryptfs devkms serve`: a key server that can go away by itself, unlike
// the one inside a --dev mount.
type kmsServer struct {
	t    testing.TB
	dir  string
	addr string
	cmd  *exec.Cmd // nil: down
}

func (s *kmsServer) Env() []string   { return []string{"VMCRYPTFS_KMS=" + s.Config()} }
func (s *kmsServer) Flags() []string { return nil }
func (s *kmsServer) Config() string  { return filepath.Join(s.dir, "kms.toml") }

// startKMS serves a new, empty key store on a loopback port that it keeps for its life.
func startKMS(t testing.TB) *kmsServer {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &kmsServer{t: t, dir: filepath.Join(t.TempDir(), "kms"), addr: l.Addr().String()}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.stop)
	s.start()
	return s
}

func (s *kmsServer) start() {
	s.t.Helper()
	s.cmd = exec.Command(mounttest.Program(s.t), "devkms", "serve", "--dir", s.dir, "--listen", s.addr)
	s.cmd.Stderr = os.Stderr
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	mounttest.Eventually(s.t, "the key server listens", 10*time.Second, func() error {
		if _, err := os.Stat(s.Config()); err != nil {
			return err
		}
		c, err := net.Dial("tcp", s.addr)
		if err == nil {
			err = c.Close()
		}
		return err
	})
}

// stop ends the server; idempotent.
func (s *kmsServer) stop() {
	if s.cmd == nil {
		return
	}
	s.signal(unix.SIGCONT)
	s.signal(unix.SIGKILL)
	_ = s.cmd.Wait()
	s.cmd = nil
}

// hang stops the server from answering; its port still accepts connections.
func (s *kmsServer) hang() { s.signal(unix.SIGSTOP) }

// wake ends hang.
func (s *kmsServer) wake() { s.signal(unix.SIGCONT) }

func (s *kmsServer) signal(sig unix.Signal) {
	if err := s.cmd.Process.Signal(sig); err != nil {
		s.t.Errorf("signal key server: %v", err)
	}
}

// newServed makes and mounts a datastore whose keys are at s.
func newServed(t testing.TB, s *kmsServer, options ...string) *datastore {
	t.Helper()
	d := newUnmounted(t, s, options...)
	d.Must("init", "--provider", "dev", d.Backing)
	d.Mount()
	return d
}

// within fails when f takes longer than limit.
func within(t testing.TB, what string, limit time.Duration, f func()) {
	t.Helper()
	start := time.Now()
	f()
	if took := time.Since(start); took > limit {
		t.Errorf("%s took %v, want at most %v", what, took.Round(time.Millisecond), limit)
	}
}

// openErr opens and closes a file and gives open's error.
func openErr(path string, flags int) error {
	fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0o644)
	for err == unix.EINTR { // a signal of Go's scheduler ends a wait for the KMS, as any would
		fd, err = unix.Open(path, flags|unix.O_CLOEXEC, 0o644)
	}
	if err != nil {
		return err
	}
	if err := unix.Close(fd); err != nil {
		return fmt.Errorf("close: %w", err)
	}
	return nil
}
