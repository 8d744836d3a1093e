package integration

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"vmcryptfs/integration/mounttest"
	"vmcryptfs/integration/tally"
)

// TestNothingBelow: from the first mount to the unmount, writes to paths of the mount never
// arrive in the bare directory: neither while the daemon is killed, aborted, or unable to start
// again, nor while another mount takes the place of a dead one.
func TestNothingBelow(t *testing.T) {
	long := strings.Repeat("l", 200)
	t.Parallel()
	for name, backing := range map[string]string{
		"beneath":     "",
		"over, below": filepath.Join(long, long), // too long for anything but mount(2), over the dead mount
	} {
		t.Run(name+", supervised", func(t *testing.T) {
			t.Parallel()
			testSupervised(t, backing)
		})
		t.Run(name+", by hand", func(t *testing.T) {
			t.Parallel()
			testByHand(t, backing)
		})
	}
}

// bareRig is a mount with ceaseless writers, and a descriptor of the directory below.
type bareRig struct {
	*mounttest.Datastore
	bare    *os.File
	held    *os.File // keeps the mount busy: umount -f aborts the mount, and unmounts nothing
	ended   atomic.Bool
	writers sync.WaitGroup
	written atomic.Int64
}

func newBareRig(t *testing.T, backing string, options ...string) *bareRig {
	t.Helper()
	d := mounttest.NewUnmounted(t, mounttest.Embedded{Dir: filepath.Join(t.TempDir(), "devkms")}, options...)
	d.Backing = filepath.Join(d.Backing, backing)
	if err := os.MkdirAll(d.Backing, 0o755); err != nil {
		t.Fatal(err)
	}
	bare, err := os.Open(d.Mnt)
	if err != nil {
		t.Fatal(err)
	}
	r := &bareRig{Datastore: d, bare: bare}
	d.Mount()
	for i := range 2 {
		r.writers.Go(func() { r.write(i) })
	}
	t.Cleanup(r.stop)
	return r
}

// write makes one file after the other, whatever the result.
func (r *bareRig) write(writer int) {
	for i := 0; !r.ended.Load(); i++ {
		name := r.Path(fmt.Sprintf("%d-%d.img", writer, i%1000))
		if os.WriteFile(name, []byte("GUEST SECRET"), 0o644) == nil {
			r.written.Add(1)
		}
	}
}

func (r *bareRig) stop() {
	r.ended.Store(true)
	r.writers.Wait()
	if r.held != nil {
		_ = r.held.Close()
		r.held = nil
	}
}

// await waits until another daemon serves, and the writers write again.
func (r *bareRig) await(old int) {
	r.T.Helper()
	mounttest.Eventually(r.T, "another daemon serves", mounttest.Patience, func() error {
		s, err := r.TryStatus()
		if err == nil && s.PID == old {
			err = errors.New("the old one does")
		}
		if err == nil {
			r.PID = s.PID
		}
		return err
	})
	r.awaitWrites()
}

func (r *bareRig) awaitWrites() {
	r.T.Helper()
	before := r.written.Load()
	mounttest.Eventually(r.T, "writes", mounttest.Patience, func() error {
		if r.written.Load() == before {
			return errors.New("none")
		}
		return nil
	})
}

func (r *bareRig) hold() {
	r.T.Helper()
	if r.held != nil {
		_ = r.held.Close() // of a dead mount
	}
	held, err := os.Create(r.Path("held.img"))
	if err != nil {
		r.T.Fatal(err)
	}
	r.held = held
}

func (r *bareRig) kill() {
	r.T.Helper()
	if err := unix.Kill(r.PID, unix.SIGKILL); err != nil {
		r.T.Fatal(err)
	}
}

// wantNothingBelow unmounts, and looks.
func (r *bareRig) wantNothingBelow() {
	r.T.Helper()
	r.stop()
	r.Unmount()
	names, err := r.bare.Readdirnames(-1)
	if len(names) > 0 || err != nil && !errors.Is(err, io.EOF) {
		r.T.Errorf("%d files lie in clear in the bare directory: %.5q, %v", len(names), names, err)
	}
	if mounted := mounttest.Run(r.T, nil, "findmnt", r.Mnt); mounted.Code == 0 {
		r.T.Errorf("after the unmount something is mounted: %v", mounted)
	}
}

func testSupervised(t *testing.T, backing string) {
	r := newBareRig(t, backing, "--supervise")
	rounds := 1 // each failure makes the supervisor's pause longer
	if tally.Slow() {
		rounds = 4
	}
	for range rounds {
		for name, fault := range map[string]func(){
			"kill": r.kill,
			"umount -f": func() {
				if err := unix.Unmount(r.Mnt, unix.MNT_FORCE|unix.UMOUNT_NOFOLLOW); !errors.Is(err, unix.EBUSY) {
					t.Errorf("umount -f of a mount in use: %v", err)
				}
			},
		} {
			t.Log(name)
			r.hold()
			old := r.PID
			fault()
			r.await(old)
		}
	}
	failedRestarts(r)
	r.wantNothingBelow()
	tally.Add(t, "kills and aborts under writers", 2*rounds+1)
}

// failedRestarts takes BACKING away while the supervisor tries to mount again.
func failedRestarts(r *bareRig) {
	r.T.Helper()
	const failed = "not mounted; trying again"
	before, old := strings.Count(r.ReadLog(), failed), r.PID
	away := r.Backing + ".away"
	if err := os.Rename(r.Backing, away); err != nil {
		r.T.Fatal(err)
	}
	r.kill()
	mounttest.Eventually(r.T, "an attempt fails", mounttest.Patience, func() error {
		if n := strings.Count(r.ReadLog(), failed); n == before {
			return errors.New("none did")
		}
		return nil
	})
	if err := os.WriteFile(r.Path("now.img"), nil, 0o644); !errors.Is(err, unix.ENOTCONN) {
		r.T.Errorf("a write while nothing serves: %v, want ENOTCONN", err)
	}
	if err := os.Rename(away, r.Backing); err != nil {
		r.T.Fatal(err)
	}
	r.await(old)
}

// testByHand mounts again as a service manager does: by the same command.
func testByHand(t *testing.T, backing string) {
	r := newBareRig(t, backing)
	const rounds = 4
	for range rounds {
		old := r.PID
		r.kill()
		if err := mounttest.AwaitExit(old); err != nil {
			t.Fatal(err)
		}
		if failed := r.Command("mount", "--dev", r.Backing+".none", r.Mnt); failed.Code == 0 {
			t.Fatal(failed)
		}
		r.Mount()
		r.awaitWrites()
	}
	r.wantNothingBelow()
	tally.Add(t, "kills and aborts under writers", rounds)
}
