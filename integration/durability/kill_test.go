package durability

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vmcryptfs/integration/mounttest"
	"vmcryptfs/integration/powerloss"
	"vmcryptfs/integration/tally"
)

// TestKillAmongAll kills the daemon in the midst of all the operations of the power-loss tests:
// conversions, renames and rekeys as well. (TestKill of package integration checks that no
// answered write is lost.)
func TestKillAmongAll(t *testing.T) {
	t.Parallel()
	rounds := 3
	if tally.Slow() {
		rounds = 25
	}
	o := newOutage(t, powerloss.Options{})
	if err := o.begin(); err != nil {
		t.Fatal(err)
	}
	for range rounds {
		enough, worked := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(worked)
			o.load(rand.Uint64(), func() { close(enough) })
		}()
		select {
		case <-enough:
		case <-worked: // somebody was refused: said so
			t.FailNow()
		}
		o.d.KillUnder(func() { <-worked })
		o.d.Mount()
		for _, w := range o.workers {
			if err := errors.Join(w.check(o.d), w.adopt(o.d)); err != nil {
				t.Fatal(err)
			}
		}
	}
	tally.Add(t, "kills", rounds)
}

// TestDeadDaemon kills a daemon with many waiting callers. Each caller gets an error; umount
// clears the dead mount, and mount brings all back at once.
func TestDeadDaemon(t *testing.T) {
	t.Parallel()
	d := mounttest.New(t)
	content := bytes.Repeat([]byte("what was answered"), 1000)
	for _, name := range []string{"a.img", "a.log"} {
		if err := writeDurably(d.Path(name), content); err != nil {
			t.Fatal(err)
		}
	}
	for name, clear := range map[string]func() error{
		"vmcryptfs umount": func() error { d.Must("umount", d.Mnt); return nil },
		"umount":           func() error { return runTool("umount", d.Mnt) },
		"fusermount3 -u":   func() error { return runTool("fusermount3", "-u", d.Mnt) },
	} {
		killWithCallers(t, d)
		if err := clear(); err != nil {
			t.Errorf("%s of a dead mount: %v", name, err)
			d.Must("umount", "--lazy", d.Mnt)
		}
		d.Mount()
		for _, name := range []string{"a.img", "a.log"} {
			if got := d.Read(name); !bytes.Equal(got, content) {
				t.Errorf("%s after the kill: %d bytes, want %d", name, len(got), len(content))
			}
		}
		tally.Add(t, "kills", 1)
	}
}

// killWithCallers stops the daemon, so every caller waits, and kills the daemon.
func killWithCallers(t *testing.T, d *mounttest.Datastore) {
	t.Helper()
	open := map[string]*os.File{}
	for _, name := range []string{"a.img", "a.log"} {
		f, err := os.OpenFile(d.Path(name), os.O_RDWR|unix.O_DIRECT, 0) // no page cache answers
		if err != nil {
			t.Fatal(err)
		}
		open[name] = f
	}
	dir, err := os.Open(d.Mnt)
	if err != nil {
		t.Fatal(err)
	}
	stop(t, d.PID)
	calls := map[string]func() error{
		"fsync of a directory": dir.Sync,
		"create":               func() error { return createNew(d.Path("new.img")) },
		"mkdir":                func() error { return os.Mkdir(d.Path("new"), 0o755) },
		"rename":               func() error { return os.Rename(d.Path("a.img"), d.Path("b.img")) },
		"unlink":               func() error { return os.Remove(d.Path("a.log")) },
		"open":                 func() error { return mounttest.OpenErr(d.Path("a.img"), unix.O_RDWR) },
		"statfs":               func() error { return unix.Statfs(d.Mnt, new(unix.Statfs_t)) },
		"list":                 func() error { _, err := os.ReadDir(d.Mnt); return err },
	}
	for name, f := range open {
		calls["write to "+name] = func() error { _, err := f.WriteAt(aligned(4096), 0); return err }
		calls["read of "+name] = func() error { _, err := f.ReadAt(aligned(4096), 8192); return err }
		calls["fsync of "+name] = f.Sync
		calls["truncate of "+name] = func() error { return f.Truncate(1) }
	}
	awaitAll(t, d, calls)
	for _, f := range open {
		_ = f.Close() // flush is refused by a dead mount
	}
	_ = dir.Close()
}

// awaitAll calls, kills the daemon when the kernel has requests waiting, and has every call
// end with an error.
func awaitAll(t *testing.T, d *mounttest.Datastore, calls map[string]func() error) {
	t.Helper()
	var ended sync.WaitGroup
	var mu sync.Mutex
	for what, call := range calls {
		ended.Go(func() {
			err := call()
			if err == nil {
				mu.Lock()
				defer mu.Unlock()
				t.Errorf("%s of a daemon that was stopped and killed: no error", what)
			}
		})
	}
	control := t.TempDir()
	if err := unix.Mount("fusectl", control, "fusectl", 0, ""); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Unmount(control, unix.MNT_DETACH) }()
	mounttest.Eventually(t, "requests that wait", mounttest.Patience, func() error { return requestsWait(control, d.Mnt) })
	if err := unix.Kill(d.PID, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	d.AwaitExit()
	done := make(chan struct{})
	go func() {
		defer close(done)
		ended.Wait()
	}()
	select {
	case <-done:
	case <-time.After(mounttest.Patience):
		t.Fatal("calls of a dead daemon wait on")
	}
}

// requestsWait asks the kernel how many requests of mnt have no answer: at least one of the calls that
// lock the directory, one of those that lock each file, and the four calls that lock nothing.
func requestsWait(control, mnt string) error {
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(table)) {
		f := strings.Fields(line)
		if len(f) < 5 || f[4] != mnt {
			continue
		}
		_, minor, _ := strings.Cut(f[2], ":")
		text, err := os.ReadFile(filepath.Join(control, minor, "waiting"))
		if err != nil {
			return err
		}
		if n, err := strconv.Atoi(strings.TrimSpace(string(text))); err != nil || n < 7 {
			return fmt.Errorf("%d requests wait, %v", n, err)
		}
		return nil
	}
	return fmt.Errorf("%s is not mounted", mnt)
}

// stop sends SIGSTOP, and waits until no thread runs any more.
func stop(t *testing.T, pid int) {
	t.Helper()
	if err := unix.Kill(pid, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	mounttest.Eventually(t, "the daemon's stop", mounttest.Patience, func() error {
		threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
		if err != nil {
			return err
		}
		for _, path := range threads {
			stat, err := os.ReadFile(path)
			if err == nil && !strings.Contains(string(stat), ") T ") {
				return fmt.Errorf("thread %.60s", stat)
			}
		}
		return nil
	})
}
