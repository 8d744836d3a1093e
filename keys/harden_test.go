package keys

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// runChild runs this test program in a role of child.
func runChild(t *testing.T, role string) string {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), "KEYS_TEST_CHILD="+role)
	if role == "harden-container" {
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER,
			UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}}
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("child %s: %v\n%s", role, err, out)
	}
	return string(out)
}

// child runs a test's role in a process of its own.
func child(role string) int {
	roles := map[string]func() error{
		"limit":            childLimit,
		"harden":           childHarden,
		"harden-nobody":    func() error { return errors.Join(dropCapabilities(), childHarden()) },
		"harden-container": childContainer,
	}
	f := roles[role]
	if f == nil {
		fmt.Fprintln(os.Stderr, "no role", role)
		return 2
	}
	if err := f(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// dropCapabilities makes the process one of an ordinary user.
func dropCapabilities() error {
	if os.Geteuid() != 0 {
		return nil
	}
	const nobody = 65534
	if err := errors.Join(unix.Setresgid(nobody, nobody, nobody), unix.Setresuid(nobody, nobody, nobody)); err != nil {
		return err
	}
	// A change of user makes the process not dumpable. HardenProcess, under test, must do so
	// itself.
	return unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0)
}

// childHarden hardens itself, checks itself, and uses /proc/self/fd as a file system does.
func childHarden() error {
	if err := HardenProcess(); err != nil {
		return err
	}
	dumpable, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	if err != nil || dumpable != 0 {
		return fmt.Errorf("dumpable %d, %v", dumpable, err)
	}
	var core unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_CORE, &core); err != nil || core.Max != 0 {
		return fmt.Errorf("core limit %d, %v", core.Max, err)
	}
	if b, err := os.ReadFile("/proc/self/coredump_filter"); err != nil || strings.Trim(string(b), "0\n") != "" {
		return fmt.Errorf("core filter %q, %v", b, err)
	}
	// Address space reserved later by a program.
	m, err := unix.Mmap(-1, 0, 1<<30, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return fmt.Errorf("reserve memory: %w", err)
	}
	m[0] = 1
	if err := checkResident(); err != nil {
		return err
	}
	if _, err := NewSecret(64); err != nil {
		return err
	}
	return useProcFd()
}

// checkResident checks that the reserved memory did not become resident, and as root that all
// memory will be locked.
func checkResident() error {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return err
	}
	kib := func(field string) (n int) {
		_, rest, _ := strings.Cut(string(b), "\n"+field+":")
		fmt.Sscan(rest, &n)
		return n
	}
	if rss := kib("VmRSS"); rss == 0 || rss > 100<<10 {
		return fmt.Errorf("%d KiB resident", rss)
	}
	if locked := kib("VmLck"); os.Geteuid() == 0 && locked < 1<<20 {
		return fmt.Errorf("only %d KiB locked", locked)
	}
	return nil
}

// childContainer is root in a user namespace, with a capability without effect there.
func childContainer() error {
	const limit = 8 << 20
	if err := unix.Setrlimit(unix.RLIMIT_MEMLOCK, &unix.Rlimit{Cur: limit, Max: limit}); err != nil {
		return err
	}
	if err := HardenProcess(); err != nil {
		return err
	}
	if files, bytes, limited, err := MostFiles(64); err != nil || !limited || bytes != limit || files == 0 {
		return fmt.Errorf("most files: %d in %d bytes, limited %v, %v", files, bytes, limited, err)
	}
	secret, err := NewSecret(64)
	secret.Wipe()
	return err
}

func useProcFd() error {
	dir, err := os.MkdirTemp("", "keys-harden")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	path := fmt.Sprintf("/proc/self/fd/%d", fd)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	return errors.Join(
		unix.Chmod(path, 0o640),
		unix.Linkat(unix.AT_FDCWD, path, unix.AT_FDCWD, dir+"/name", unix.AT_SYMLINK_FOLLOW),
	)
}

func TestHardenProcess(t *testing.T) {
	for _, role := range []string{"harden", "harden-nobody", "harden-container"} {
		t.Run(role, func(t *testing.T) { runChild(t, role) })
	}
}
