package durability

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vmcryptfs/integration/mounttest"
	"vmcryptfs/integration/tally"
)

// Of linux/fs.h: _IOWR('X', 119, int) and 120.
const (
	fiFreeze = 0xc0045877
	fiThaw   = 0xc0045878
)

// freeze makes the file system at dir stand still for all writers, as a storage array does during
// a failover. thaw ends that, at the latest before anything of t is taken down.
func freeze(t *testing.T, dir string) (thaw func()) {
	t.Helper()
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetInt(fd, fiFreeze, 0); err != nil {
		t.Fatalf("freeze %s: %v", dir, errors.Join(err, unix.Close(fd)))
	}
	thaw = sync.OnceFunc(func() {
		if err := errors.Join(unix.IoctlSetInt(fd, fiThaw, 0), unix.Close(fd)); err != nil {
			t.Errorf("thaw %s: %v", dir, err)
		}
	})
	t.Cleanup(thaw)
	return thaw
}

// writersEnv makes this test's program a writer with as many threads as writes.
const writersEnv = "VMCRYPTFS_DURABILITY_WRITERS"

// writers are the writes number First and following, of one unit each, every write at a place of
// its own.
type writers struct {
	Path          string
	First, Writes int
}

func writersMain(arg string) error {
	var w writers
	if err := json.Unmarshal([]byte(arg), &w); err != nil {
		return err
	}
	debug.SetMaxThreads(w.Writes + 1000)
	fd, err := unix.Open(w.Path, unix.O_WRONLY|unix.O_DIRECT|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	memory := aligned(w.Writes * unitSize)
	var failed atomic.Pointer[error]
	var running sync.WaitGroup
	for i := range w.Writes {
		running.Go(func() {
			p := memory[i*unitSize:][:unitSize]
			binary.NativeEndian.PutUint64(p, uint64(w.First+i))
			err := mounttest.Uninterrupted(func() error {
				_, err := unix.Pwrite(fd, p, int64(w.First+i)*unitSize)
				return err
			})
			if err != nil {
				failed.Store(&err)
			}
		})
	}
	running.Wait()
	if err := failed.Load(); err != nil {
		return *err
	}
	return unix.Close(fd)
}

// start begins to write as a user without any other right.
func (w writers) start(t *testing.T) (c *exec.Cmd, output *bytes.Buffer) {
	t.Helper()
	arg, err := json.Marshal(w)
	if err != nil {
		t.Fatal(err)
	}
	c, output = exec.Command("/proc/self/exe"), new(bytes.Buffer)
	c.Env = append(os.Environ(), writersEnv+"="+string(arg))
	c.Stdout, c.Stderr, c.Dir = output, output, "/"
	c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	return c, output
}

// statusOf is a number of /proc/PID/status.
func statusOf(pid int, field string) (n int, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if value, ok := strings.CutPrefix(line, field+":"); ok {
			_, err := fmt.Sscan(value, &n)
			return n, err
		}
	}
	return 0, fmt.Errorf("process %d tells no %s", pid, field)
}

// TestFrozenBacking: 11,000 writes of an unprivileged user come while BACKING stands still. The
// writes do not end the daemon. Callers that need nothing of BACKING are not kept waiting. When
// BACKING continues, each write is answered and done.
func TestFrozenBacking(t *testing.T) {
	const writes, processes, mostThreads, mostKiB = 11000, 4, 500, 256 << 10
	d, disk := newOnLoop(t, 64, "")
	reachable(t, d.Mnt)
	d.Write("attack.img", make([]byte, writes*unitSize))
	if err := os.Chmod(d.Path("attack.img"), 0o666); err != nil {
		t.Fatal(err)
	}
	guest := noise(64 << 10)
	d.Write("guest.img", guest)
	memory, err := statusOf(d.PID, "VmRSS")
	if err != nil {
		t.Fatal(err)
	}
	thaw := freeze(t, disk.dir)
	var attackers []*exec.Cmd
	var outputs []*bytes.Buffer
	for i := range processes {
		c, output := writers{d.Path("attack.img"), i * writes / processes, writes / processes}.start(t)
		attackers, outputs = append(attackers, c), append(outputs, output)
	}
	t.Cleanup(func() {
		thaw()
		for _, c := range attackers {
			_ = c.Wait()
		}
	})
	waiting := kernelCount(t, d.Mnt)
	mounttest.Eventually(t, "all writes are there", mounttest.Patience, func() error {
		if n, err := waiting(); err != nil || n < writes {
			return fmt.Errorf("%d of them, %w", n, err)
		}
		return nil
	})
	guestGoesOn(t, d, guest)
	threads, err := statusOf(d.PID, "Threads")
	if err != nil {
		t.Fatalf("the daemon: %v", err)
	}
	after, err := statusOf(d.PID, "VmRSS")
	if err != nil || threads > mostThreads || after-memory > mostKiB {
		t.Errorf("%v; %d threads and %d KiB more for %d writes, want up to %d and %d", err, threads, after-memory, writes, mostThreads, mostKiB)
	}
	thaw()
	for i, c := range attackers {
		if err := c.Wait(); err != nil {
			t.Errorf("writer %d: %v: %.300s", i, err, outputs[i])
		}
	}
	content := d.Read("attack.img")
	for i := range writes {
		if got := binary.NativeEndian.Uint64(content[i*unitSize:]); got != uint64(i) {
			t.Fatalf("write %d was answered, and %d is in its place", i, got)
		}
	}
	tally.Add(t, "faults", 1)
}

// guestGoesOn does operations that need nothing of the frozen BACKING.
func guestGoesOn(t *testing.T, d *mounttest.Datastore, content []byte) {
	t.Helper()
	program := mounttest.Program(t)
	for _, c := range []struct {
		what string
		call func() error
	}{
		{"stat", func() error { _, err := os.Stat(d.Path("guest.img")); return err }},
		{"statfs", func() error { return unix.Statfs(d.Mnt, new(unix.Statfs_t)) }},
		{"a list", func() error { _, err := os.ReadDir(d.Mnt); return err }},
		{"an open and a read", func() error {
			got, err := os.ReadFile(d.Path("guest.img"))
			if err == nil && !bytes.Equal(got, content) {
				err = errors.New("other bytes")
			}
			return err
		}},
		{"status", func() error { return runTool(program, "status", d.Mnt) }},
	} {
		ended := make(chan error, 1)
		go func() { ended <- c.call() }()
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("%s while others stand still: %v", c.what, err)
			}
		case <-time.After(mounttest.Patience / 2):
			t.Errorf("%s is not answered while others stand still", c.what)
		}
	}
}

// kernelCount asks how many requests of a mount have no answer.
func kernelCount(t *testing.T, mnt string) func() (int, error) {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(mnt, &st); err != nil {
		t.Fatal(err)
	}
	control := t.TempDir()
	if err := unix.Mount("fusectl", control, "fusectl", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(control, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	path := filepath.Join(control, fmt.Sprint(unix.Minor(st.Dev)), "waiting")
	return func() (n int, err error) {
		b, err := os.ReadFile(path)
		if err == nil {
			_, err = fmt.Sscan(string(b), &n)
		}
		return n, err
	}
}

// reachable lets every user come to dir, of a test's temporary directory.
func reachable(t *testing.T, dir string) {
	t.Helper()
	for ; dir != os.TempDir(); dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
}
