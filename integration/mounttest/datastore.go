package mounttest

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Datastore is a BACKING directory and its mountpoint, both below the test's temporary directory
// and removed with the directory.
type Datastore struct {
	T       testing.TB
	Backing string
	Mnt     string
	KMS     KMS
	Options []string // of every mount
	PID     int      // of the daemon; 0: not mounted
	Log     string   // the daemons' log file
}

// New mounts a new datastore the way of the first five minutes: --dev over an empty
// directory.
func New(t testing.TB, options ...string) *Datastore {
	t.Helper()
	d := NewUnmounted(t, Embedded{filepath.Join(t.TempDir(), "devkms")}, options...)
	d.Mount()
	return d
}

// NewUnmounted makes the directories alone.
func NewUnmounted(t testing.TB, kms KMS, options ...string) *Datastore {
	t.Helper()
	top := t.TempDir()
	d := &Datastore{
		T: t, KMS: kms, Options: options,
		Backing: filepath.Join(top, "backing"),
		Mnt:     filepath.Join(top, "mnt"),
	}
	for _, dir := range []string{d.Backing, d.Mnt} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(d.cleanup)
	return d
}

// Command runs vmcryptfs with this datastore's key server in the environment.
func (d *Datastore) Command(args ...string) Result {
	d.T.Helper()
	return Run(d.T, d.KMS.Env(), append([]string{Program(d.T)}, args...)...)
}

// Must is Command, and fails the test if the command fails.
func (d *Datastore) Must(args ...string) Result {
	d.T.Helper()
	r := d.Command(args...)
	if r.Code != 0 {
		d.T.Fatal(r)
	}
	return r
}

// TryMount runs the mount command; on success the daemon's process id is known.
func (d *Datastore) TryMount() Result {
	d.T.Helper()
	args := append([]string{"mount"}, d.KMS.Flags()...)
	args = append(append(args, d.Options...), d.Backing, d.Mnt)
	r := d.Command(args...)
	if r.Code == 0 {
		s := d.Status()
		d.PID, d.Log = s.PID, s.Log
	}
	return r
}

// Mount is TryMount, and fails the test if the mount fails.
func (d *Datastore) Mount() {
	d.T.Helper()
	if r := d.TryMount(); r.Code != 0 {
		d.T.Fatal(r)
	}
}

// Unmount unmounts and waits for the daemon, which must end by itself. A test beside that makes a mount
// namespace begins with a copy of this mount, which umount does not wait for any longer than Grace of
// package mounts.
func (d *Datastore) Unmount() {
	d.T.Helper()
	Eventually(d.T, "umount", Patience, func() error {
		r := d.Command("umount", d.Mnt)
		switch copied := r.Code == 6 && strings.Contains(r.Stderr, "in a mount namespace of its own"); {
		case r.Code == 0, copied && strings.Contains(r.Stderr, "unmounted here"):
			return nil
		case !copied:
			d.T.Fatal(r)
		}
		return errors.New(r.String())
	})
	d.AwaitExit()
}

// Remount is Unmount and Mount: everything cached is gone afterwards.
func (d *Datastore) Remount() {
	d.T.Helper()
	d.Unmount()
	d.Mount()
}

// Kill ends the daemon at once, in the middle of its work, and removes the dead mount.
func (d *Datastore) Kill() {
	d.T.Helper()
	d.KillUnder(func() {})
}

// KillUnder is Kill under a load that ends by its first error. wait waits for the load's end.
// Until then the dead mount stays: once the mount is detached, its path leads to the directory
// below, where everything works and nothing is kept.
func (d *Datastore) KillUnder(wait func()) {
	d.T.Helper()
	if err := unix.Kill(d.PID, unix.SIGKILL); err != nil {
		d.T.Fatalf("kill daemon %d: %v", d.PID, err)
	}
	d.AwaitExit()
	wait()
	if err := unix.Unmount(d.Mnt, unix.MNT_DETACH); err != nil {
		d.T.Fatalf("unmount %s after kill: %v", d.Mnt, err)
	}
}

// AwaitExit waits for the daemon's end.
func (d *Datastore) AwaitExit() {
	d.T.Helper()
	if err := AwaitExit(d.PID); err != nil {
		d.T.Fatal(err)
	}
	d.PID = 0
}

// ReadLog returns the logs of all daemons of this datastore.
func (d *Datastore) ReadLog() string {
	d.T.Helper()
	b, err := os.ReadFile(d.Log)
	if err != nil {
		d.T.Errorf("daemon's log: %v", err)
	}
	return string(b)
}

// cleanup takes down the remains, also after a failure half-way, and searches the daemon's log
// for a crash.
func (d *Datastore) cleanup() {
	for unix.Unmount(d.Mnt, unix.MNT_DETACH) == nil { // also dead ones below
	}
	if d.Log != "" {
		log := d.ReadLog()
		if strings.Contains(log, "panic") || strings.Contains(log, "fatal error") || strings.Contains(log, "goroutine ") {
			d.T.Errorf("the daemon crashed:\n%s", log)
		}
		if d.T.Failed() {
			d.T.Logf("the daemon's log:\n%s", log[max(0, len(log)-8192):])
		}
	}
	if d.PID == 0 {
		return
	}
	_ = unix.Kill(d.PID, unix.SIGCONT)
	_ = unix.Kill(d.PID, unix.SIGKILL)
	if err := AwaitExit(d.PID); err != nil {
		d.T.Error(err)
	}
}

// Status is the promise of `status --json` (design §7), as far as tests need.
type Status struct {
	PID        int    `json:"pid"`
	Version    string `json:"version"`
	Backing    string `json:"backing"`
	Mountpoint string `json:"mountpoint"`
	Transport  string `json:"transport"`
	Cipher     string `json:"cipher"`
	Log        string `json:"log"`
	IO         struct {
		OpenFiles     int64 `json:"open_files"`
		Damaged       int64 `json:"damaged"`
		Denied        int64 `json:"denied"`
		NoKey         int64 `json:"no_key"`
		BackingErrors int64 `json:"backing_errors"`
	} `json:"io"`
}

// Status asks the daemon.
func (d *Datastore) Status() Status {
	d.T.Helper()
	s, err := d.TryStatus()
	if err != nil {
		d.T.Fatal(err)
	}
	return s
}

// TryStatus is Status of a mount that may not answer.
func (d *Datastore) TryStatus() (s Status, err error) {
	d.T.Helper()
	r := d.Command("status", d.Mnt, "--json")
	if r.Code != 0 {
		return s, errors.New(r.String())
	}
	if err := json.Unmarshal([]byte(r.Stdout), &s); err != nil {
		return s, fmt.Errorf("status --json: %w\n%s", err, r.Stdout)
	}
	if s.PID <= 1 {
		return s, fmt.Errorf("status --json tells no pid:\n%s", r.Stdout)
	}
	return s, nil
}
