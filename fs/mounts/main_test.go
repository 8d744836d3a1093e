package mounts

import (
	"fmt"
	"os"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"vmcryptfs/integration/mounttest"
)

// apartEnv marks the test binary in a mount namespace of its own.
const apartEnv = "VMCRYPTFS_TEST_APART"

// TestMain runs the tests in a mount namespace of their own: the tests of another package may begin
// at any time, with a copy of every mount that they see. (In a PID namespace, as mounttest.Main
// makes one, the kernel would not list namespaces without a process.)
func TestMain(m *testing.M) {
	if err := apart(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// apart executes the test binary again in a new mount namespace. Tests that mount tell a user other
// than root to run them as root.
func apart() error {
	switch {
	case os.Geteuid() != 0:
		return nil
	case os.Getenv(apartEnv) != "":
		return mounttest.LeaveOthersMounts()
	}
	runtime.LockOSThread() // only this thread enters the namespace, and exec ends all others
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("make a mount namespace: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make the mounts private: %w", err)
	}
	return unix.Exec("/proc/self/exe", os.Args, append(os.Environ(), apartEnv+"=1"))
}
