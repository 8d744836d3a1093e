package main

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vmcryptfs/fs/admin/mounts"
)

// TestToldWhileStarting: a signal to the supervisor ends a daemon that still waits for its
// KMS.
func TestToldWhileStarting(t *testing.T) {
	if err := hideHost(); err != nil {
		t.Fatal(err)
	}
	backing, mountpoint, kms := t.TempDir(), t.TempDir(), t.TempDir()
	t.Setenv("VMCRYPTFS_DEVKMS", kms)
	if out, err := exec.Command("vmcryptfs", "init", backing, "--dev").CombinedOutput(); err != nil {
		t.Fatalf("init: %v: %s", err, out)
	}
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	config := filepath.Join(kms, "silent.toml")
	if err := writeConfig(config, silent.Addr().String(), "timeout = \"1m\"\n"); err != nil {
		t.Fatal(err)
	}
	var stderr strings.Builder
	c := exec.Command("vmcryptfs", "mount", "--supervise", "--kms", config, backing, mountpoint)
	c.Stderr = &stderr
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	if err := silent.(*net.TCPListener).SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	conn, err := silent.Accept() // the daemon's
	if err != nil {
		_ = c.Process.Kill()
		t.Fatalf("the daemon does not ask its KMS: %v, %q", err, stderr.String())
	}
	defer conn.Close()
	if err := unix.Kill(onlyChild(t, c.Process.Pid), unix.SIGTERM); err != nil {
		t.Error(err)
	}
	var exit *exec.ExitError
	if err := c.Wait(); !errors.As(err, &exit) || !strings.Contains(stderr.String(), "interrupted") {
		t.Errorf("mount: %v, %q; want that it was interrupted", err, stderr.String())
		_ = unix.Unmount(mountpoint, unix.MNT_DETACH)
	}
	if m, err := mounts.Find(mountpoint); !errors.Is(err, mounts.ErrNotMounted) {
		t.Errorf("found %+v, %v, want no mount", m, err)
	}
}

// onlyChild is the process that pid started.
func onlyChild(t *testing.T, pid int) int {
	t.Helper()
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	for _, stat := range stats {
		b, err := os.ReadFile(stat)
		if err != nil {
			continue // it has ended
		}
		_, after, _ := strings.Cut(string(b), ") ") // name; then state and parent
		if fields := strings.Fields(after); len(fields) > 1 && fields[1] == strconv.Itoa(pid) {
			child, err := strconv.Atoi(filepath.Base(filepath.Dir(stat)))
			if err != nil {
				t.Fatal(err)
			}
			return child
		}
	}
	t.Fatalf("process %d has no child", pid)
	return 0
}
