package mounttest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// stageEnv gives a copy of the test binary its part.
const stageEnv = "VMCRYPTFS_TEST_STAGE"

// Main runs a package's tests in mount and PID namespaces of their own. Mounts and processes of a
// test are gone when the tests end, even by a panic or a timeout; the host's /var/lib, /var/log
// and /run are neither used nor changed. Main returns the exit code; tools are programs required
// by the tests. TestMain must call Main and do nothing else.
func Main(tests func() int, tools ...string) int {
	var err error
	code := 1
	switch os.Getenv(stageEnv) {
	case "":
		code, err = enterNamespaces(tools)
	case "init":
		code, err = superviseTests()
	default:
		return tests()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "mounttest:", err)
		return 1
	}
	return code
}

// enterNamespaces starts the namespaces' first process and waits for the process.
func enterNamespaces(tools []string) (int, error) {
	if err := checkHost(tools); err != nil {
		return 0, err
	}
	runtime.LockOSThread() // Pdeathsig follows the thread that started the child
	c := again("init")
	c.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWPID,
		// Unlike CLONE_NEWNS in Cloneflags, Unshareflags also makes every mount private.
		Unshareflags: unix.CLONE_NEWNS,
		Pdeathsig:    unix.SIGKILL,
	}
	err := c.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.Exited() {
		return exit.ExitCode(), nil
	}
	return 0, err
}

// checkHost returns an error naming requirements missing on this host.
func checkHost(tools []string) error {
	if os.Geteuid() != 0 {
		return errors.New("these tests mount file systems: run them as root")
	}
	if _, err := os.Stat("/dev/fuse"); err != nil {
		return fmt.Errorf("these tests need FUSE (modprobe fuse): %w", err)
	}
	var missing []string
	for _, tool := range tools {
		if _, err := exec.LookPath(tool); err != nil {
			missing = append(missing, tool)
		}
	}
	if missing != nil {
		return fmt.Errorf("missing tools: %s (make test installs them)", strings.Join(missing, ", "))
	}
	return nil
}

// superviseTests is process 1 of the namespace: it hides the host's state, starts the tests and
// reaps the daemons, whose parent it becomes. When process 1 ends, the kernel ends all others.
func superviseTests() (int, error) {
	if err := hideHost(); err != nil {
		return 0, err
	}
	c := again("tests")
	if err := c.Start(); err != nil {
		return 0, err
	}
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, 0, nil)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return 0, fmt.Errorf("wait for the tests: %w", err)
		case pid == c.Process.Pid && status.Exited():
			return status.ExitStatus(), nil
		case pid == c.Process.Pid:
			return 0, fmt.Errorf("the tests were ended by %v", status.Signal())
		}
	}
}

// hideHost puts empty directories over those used by vmcryptfs.
func hideHost() error {
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	if err := LeaveOthersMounts(); err != nil {
		return err
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

// LeaveOthersMounts detaches, in a new and private mount namespace, the copies of mounts made by
// the tests of other packages and of other runs (in testing's temporary directories, named after
// the tests). Such mounts would not end before the namespace.
func LeaveOthersMounts() error {
	table, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(table)) {
		fields := strings.Fields(line)
		if len(fields) < 2 || !madeByTest(fields[1]) {
			continue
		}
		// EINVAL, ENOENT: the mount was on or below a detached one.
		err := unix.Unmount(fields[1], unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("detach %s: %w", fields[1], err)
		}
	}
	return nil
}

// madeByTest reports whether a path is in a temporary directory of a test: of this run or of a
// run whose TMPDIR is below /tmp.
func madeByTest(path string) bool {
	temporary := strings.HasPrefix(path, os.TempDir()+"/") || strings.HasPrefix(path, "/tmp/")
	return temporary && strings.Contains(path, "/Test")
}

// again returns this test binary once more, in another part.
func again(stage string) *exec.Cmd {
	c := exec.Command("/proc/self/exe", os.Args[1:]...)
	c.Env = append(os.Environ(), stageEnv+"="+stage)
	c.Stdin, c.Stdout, c.Stderr = os.Stdin, os.Stdout, os.Stderr
	return c
}
