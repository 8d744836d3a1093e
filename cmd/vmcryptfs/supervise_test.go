package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vmcryptfs/fs/mounts"
	"vmcryptfs/integration/mounttest"
)

// starting is a datastore with a key server that accepts connections and never answers: each start
// of a daemon takes seconds, long enough for a test to interfere.
type starting struct {
	t                   *testing.T
	backing, mountpoint string
	config              string
	kms                 *net.TCPListener
}

func newStarting(t *testing.T, backing string) *starting {
	t.Helper()
	if err := hideHost(); err != nil {
		t.Fatal(err)
	}
	s := &starting{t: t, backing: filepath.Join(t.TempDir(), backing), mountpoint: t.TempDir()}
	if err := os.MkdirAll(s.backing, 0o755); err != nil {
		t.Fatal(err)
	}
	kms := t.TempDir()
	t.Setenv("VMCRYPTFS_DEVKMS", kms)
	if out, err := exec.Command("vmcryptfs", "init", s.backing, "--dev").CombinedOutput(); err != nil {
		t.Fatalf("init: %v: %s", err, out)
	}
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { silent.Close() })
	s.kms = silent.(*net.TCPListener)
	s.config = filepath.Join(kms, "silent.toml")
	if err := writeConfig(s.config, silent.Addr().String(), "timeout = \"1m\"\n"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for unix.Unmount(s.mountpoint, unix.MNT_DETACH) == nil {
		}
	})
	return s
}

// mount begins a mount command.
func (s *starting) mount(stderr *strings.Builder, flags ...string) *exec.Cmd {
	s.t.Helper()
	args := append([]string{"mount", "--kms", s.config}, flags...)
	c := exec.Command("vmcryptfs", append(args, s.backing, s.mountpoint)...)
	c.Stderr = stderr
	if err := c.Start(); err != nil {
		s.t.Fatal(err)
	}
	return c
}

// awaitAsking waits for a daemon's request to the key server.
func (s *starting) awaitAsking() {
	s.t.Helper()
	if err := s.kms.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		s.t.Fatal(err)
	}
	conn, err := s.kms.Accept()
	if err != nil {
		s.t.Fatalf("no daemon asks its KMS: %v", err)
	}
	s.t.Cleanup(func() { conn.Close() })
}

// forget accepts and drops all waiting connections.
func (s *starting) forget() {
	for s.kms.SetDeadline(time.Now().Add(10*time.Millisecond)) == nil {
		conn, err := s.kms.Accept()
		if err != nil {
			return
		}
		conn.Close()
	}
}

// restarting is a supervised mount whose daemon was killed, while the next daemon starts.
func (s *starting) restarting() (supervisor, daemon int) {
	s.t.Helper()
	var stderr strings.Builder
	if err := s.mount(&stderr, "--supervise").Wait(); err != nil {
		s.t.Fatalf("mount: %v, %q", err, stderr.String())
	}
	first := s.pid()
	supervisor = parentOf(s.t, first)
	// A stopped daemon asks no more: the next connection is of the next daemon.
	if err := unix.Kill(first, unix.SIGSTOP); err != nil {
		s.t.Fatal(err)
	}
	s.forget()
	if err := unix.Kill(first, unix.SIGKILL); err != nil {
		s.t.Fatal(err)
	}
	s.awaitAsking()
	return supervisor, onlyChild(s.t, supervisor)
}

func (s *starting) pid() int {
	s.t.Helper()
	out, err := exec.Command("vmcryptfs", "status", s.mountpoint, "--json").Output()
	var status struct{ PID int }
	if err = errors.Join(err, json.Unmarshal(out, &status)); err != nil {
		s.t.Fatalf("status: %v", err)
	}
	return status.PID
}

func (s *starting) wantNoMount() {
	s.t.Helper()
	if m, err := mounts.Find(s.mountpoint); !errors.Is(err, mounts.ErrNotMounted) {
		s.t.Errorf("found %+v, %v, want no mount", m, err)
	}
}

// TestToldWhileStarting: a signal to the supervisor ends a daemon still waiting for the KMS.
func TestToldWhileStarting(t *testing.T) {
	s := newStarting(t, "")
	var stderr strings.Builder
	c := s.mount(&stderr, "--supervise")
	s.awaitAsking()
	if err := unix.Kill(onlyChild(t, c.Process.Pid), unix.SIGTERM); err != nil {
		t.Error(err)
	}
	var exit *exec.ExitError
	if err := c.Wait(); !errors.As(err, &exit) || !strings.Contains(stderr.String(), "interrupted") {
		t.Errorf("mount: %v, %q; want that it was interrupted", err, stderr.String())
	}
	s.wantNoMount()
}

// TestInterruptedOverDead: an interrupted mount command leaves the dead mount in place.
func TestInterruptedOverDead(t *testing.T) {
	s := newStarting(t, "")
	var stderr strings.Builder
	if err := s.mount(&stderr).Wait(); err != nil {
		t.Fatalf("mount: %v, %q", err, stderr.String())
	}
	first := s.pid()
	if err := unix.Kill(first, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := mounttest.AwaitExit(first); err != nil {
		t.Fatal(err)
	}
	s.forget()
	stderr.Reset()
	c := s.mount(&stderr)
	s.awaitAsking()
	if err := c.Process.Signal(unix.SIGINT); err != nil {
		t.Error(err)
	}
	if err := c.Wait(); err == nil || !strings.Contains(stderr.String(), "interrupted") {
		t.Errorf("mount: %v, %q; want that it was interrupted", err, stderr.String())
	}
	if err := os.WriteFile(filepath.Join(s.mountpoint, "guest.img"), nil, 0o644); !errors.Is(err, unix.ENOTCONN) {
		t.Errorf("a write after that: %v, want ENOTCONN", err)
	}
}

// TestDaemonToldWhileRestarting: SIGTERM to a restarting daemon ends everything, too.
func TestDaemonToldWhileRestarting(t *testing.T) {
	s := newStarting(t, "")
	supervisor, daemon := s.restarting()
	if err := unix.Kill(daemon, unix.SIGTERM); err != nil {
		t.Error(err)
	}
	if err := mounttest.AwaitExit(supervisor); err != nil {
		t.Error(err)
	}
	s.wantNoMount()
}

// TestUnmountedWhileRestarting: a mount unmounted during the restart of a daemon stays unmounted.
func TestUnmountedWhileRestarting(t *testing.T) {
	long := strings.Repeat("l", 200)
	for name, backing := range map[string]string{"beneath": "", "over": long + "/" + long} {
		t.Run(name, func(t *testing.T) { unmountedWhileRestarting(t, backing) })
	}
}

func unmountedWhileRestarting(t *testing.T, backing string) {
	s := newStarting(t, backing)
	supervisor, _ := s.restarting()
	if out, err := exec.Command("vmcryptfs", "umount", s.mountpoint).CombinedOutput(); err != nil {
		t.Errorf("umount: %v: %s", err, out)
	}
	if err := mounttest.AwaitExit(supervisor); err != nil {
		t.Error(err)
	}
	s.wantNoMount()
}

// parentOf is the parent process of pid.
func parentOf(t *testing.T, pid int) int {
	t.Helper()
	parent, err := readParent(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	return parent
}

// onlyChild is the only child process of pid.
func onlyChild(t *testing.T, pid int) int {
	t.Helper()
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	for _, stat := range stats {
		if parent, err := readParent(stat); err != nil || parent != pid { // an error: the process has ended
			continue
		}
		child, err := strconv.Atoi(filepath.Base(filepath.Dir(stat)))
		if err != nil {
			t.Fatal(err)
		}
		return child
	}
	t.Fatalf("process %d has no child", pid)
	return 0
}

// readParent reads the parent of a process from /proc/PID/stat.
func readParent(stat string) (int, error) {
	b, err := os.ReadFile(stat)
	if err != nil {
		return 0, err
	}
	_, after, _ := strings.Cut(string(b), ") ") // name; then state and parent
	fields := strings.Fields(after)
	if len(fields) < 2 {
		return 0, fmt.Errorf("%s: no parent", stat)
	}
	return strconv.Atoi(fields[1])
}
