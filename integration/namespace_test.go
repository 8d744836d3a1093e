package integration

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// stageEnv tells a copy of the test binary which part it plays.
const stageEnv = "VMCRYPTFS_INTEGRATION_STAGE"

// TestMain runs the tests in mount and PID namespaces of their own: mounts made and
// daemons started by a test are gone when it ends, even by a panic or a timeout, and
// the host's state, logs and configuration of vmcryptfs are neither used nor changed.
func TestMain(m *testing.M) {
	switch os.Getenv(stageEnv) {
	case "":
		os.Exit(enterNamespaces())
	case "init":
		os.Exit(superviseTests())
	default:
		os.Exit(runTests(m))
	}
}

// enterNamespaces starts the namespaces' first process and waits for it.
func enterNamespaces() int {
	if err := checkHost(); err != nil {
		fmt.Fprintln(os.Stderr, "integration:", err)
		return 1
	}
	runtime.LockOSThread() // Pdeathsig follows the thread that started the child
	c := again("init")
	c.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWPID,
		// Unlike CLONE_NEWNS in Cloneflags, this also makes every mount private.
		Unshareflags: unix.CLONE_NEWNS,
		Pdeathsig:    unix.SIGKILL,
	}
	return exitCode(c.Run())
}

// checkHost tells what the tests cannot do without.
func checkHost() error {
	if os.Geteuid() != 0 {
		return errors.New("these tests mount file systems: run them as root")
	}
	if _, err := os.Stat("/dev/fuse"); err != nil {
		return fmt.Errorf("these tests need FUSE (modprobe fuse): %w", err)
	}
	var missing []string
	for _, tool := range []string{"qemu-img", "qemu-io", "fio", "rsync", "tar", "cp", "mv", "dd", "fallocate", "truncate"} {
		if _, err := exec.LookPath(tool); err != nil {
			missing = append(missing, tool)
		}
	}
	if missing != nil {
		return fmt.Errorf("missing tools: %s (make test installs them)", strings.Join(missing, ", "))
	}
	return nil
}

// superviseTests is process 1 of the namespace: it hides the host's state, starts the
// tests and reaps the daemons, whose parent it becomes. When it ends the kernel ends
// all of them.
func superviseTests() int {
	if err := hideHost(); err != nil {
		fmt.Fprintln(os.Stderr, "integration:", err)
		return 1
	}
	c := again("tests")
	if err := c.Start(); err != nil {
		fmt.Fprintln(os.Stderr, "integration:", err)
		return 1
	}
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, 0, nil)
		switch {
		case err == unix.EINTR:
		case err != nil:
			fmt.Fprintln(os.Stderr, "integration: wait for the tests:", err)
			return 1
		case pid == c.Process.Pid && status.Exited():
			return status.ExitStatus()
		case pid == c.Process.Pid:
			fmt.Fprintln(os.Stderr, "integration: the tests were ended by", status.Signal())
			return 1
		}
	}
}

// hideHost puts empty directories over those that vmcryptfs uses.
func hideHost() error {
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	for _, dir := range []string{"/var/lib", "/var/log", "/run"} {
		if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=755"); err != nil {
			return fmt.Errorf("mount tmpfs on %s: %w", dir, err)
		}
	}
	if _, err := os.Stat("/etc/vmcryptfs"); err == nil {
		if err := unix.Mount("tmpfs", "/etc/vmcryptfs", "tmpfs", 0, "mode=755"); err != nil {
			return fmt.Errorf("hide /etc/vmcryptfs: %w", err)
		}
	}
	return nil
}

func runTests(m *testing.M) int {
	// A step of the model is a handful of system calls on two file systems, so that
	// fewer and longer sequences than rapid's 100 find more. Flags given by hand win.
	for name, value := range map[string]string{"rapid.checks": "60", "rapid.steps": "60", "rapid.nofailfile": "true"} {
		if err := flag.Set(name, value); err != nil {
			fmt.Fprintln(os.Stderr, "integration:", err)
			return 1
		}
	}
	return m.Run()
}

// again is this test binary once more, in another part.
func again(stage string) *exec.Cmd {
	c := exec.Command("/proc/self/exe", os.Args[1:]...)
	c.Env = append(os.Environ(), stageEnv+"="+stage)
	c.Stdin, c.Stdout, c.Stderr = os.Stdin, os.Stdout, os.Stderr
	return c
}

func exitCode(err error) int {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit) && exit.Exited():
		return exit.ExitCode()
	default:
		fmt.Fprintln(os.Stderr, "integration:", err)
		return 1
	}
}
