package kmip_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// confine gives a PID namespace of its own to a command not yet started. All processes begun by
// the command end with the command (PyKMIP forks a process that ends for nobody), and the command
// ends with this process, even when this process is killed. Temporary files, among them a socket
// whose path has to be short, get a directory removed after the test.
func confine(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	dir, err := os.MkdirTemp("", "kmip")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	cmd.Env = append(cmd.Environ(), "TMPDIR="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID, Pdeathsig: syscall.SIGKILL}
	if uid, gid := os.Geteuid(), os.Getegid(); uid != 0 { // root alone may do so outside a user namespace
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: uid, HostID: uid, Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: gid, HostID: gid, Size: 1}}
	}
}

// running lists the processes whose command line contains text.
func running(t *testing.T, text string) (all []string) {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil || len(files) == 0 {
		t.Fatalf("no process in /proc: %v", err)
	}
	for _, file := range files {
		line, _ := os.ReadFile(file) // the process may have ended
		if bytes.Contains(line, []byte(text)) {
			all = append(all, fmt.Sprintf("%s: %s", file, bytes.ReplaceAll(line, []byte{0}, []byte{' '})))
		}
	}
	return all
}

// TestServerEndsWhole: nothing is left of an ended server.
func TestServerEndsWhole(t *testing.T) {
	t.Parallel()
	var dir string // part of the server's command line, and of no other
	t.Run("server", func(t *testing.T) {
		startPyKMIP(t)
		dir = filepath.Dir(t.TempDir())
		if n := len(running(t, dir)); n < 2 {
			t.Errorf("%d processes of a server, want at least 2", n)
		}
	})
	if left := running(t, dir); len(left) > 0 {
		t.Errorf("left:\n%s", strings.Join(left, "\n"))
	}
}

// launchEnv makes TestLaunched start a server, to be killed beside the server.
const launchEnv = "VMCRYPTFS_TEST_LAUNCH"

// TestLaunched is the process killed by TestServerEndsWithTest.
func TestLaunched(t *testing.T) {
	if os.Getenv(launchEnv) == "" {
		return
	}
	startPyKMIP(t)
	fmt.Println("launched")
	_, _ = io.Copy(io.Discard, os.Stdin)
}

// TestServerEndsWithTest: nothing is left of the server of a killed test.
func TestServerEndsWithTest(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cmd := exec.Command(os.Args[0], "-test.run=^TestLaunched$")
	cmd.Env = append(os.Environ(), launchEnv+"=1", "TMPDIR="+dir)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(out)
	said, _ := lines.ReadString('\n')
	n := len(running(t, dir))
	if err := cmd.Process.Kill(); err != nil {
		t.Error(err)
	}
	more, _ := io.ReadAll(lines)
	_ = cmd.Wait()
	if n < 2 {
		t.Errorf("%d processes of a server, want at least 2; the test said\n%s%s", n, said, more)
	}
	await(t, "the end of the server", nil, func() bool { return len(running(t, dir)) == 0 })
}
