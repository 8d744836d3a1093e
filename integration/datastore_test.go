package integration

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// datastore is a BACKING directory and the place where it is mounted, both below the
// test's temporary directory and gone with it.
type datastore struct {
	t       testing.TB
	backing string
	mnt     string
	kms     kmsSource
	options []string // of every mount
	pid     int      // of the daemon; 0: not mounted
	log     string   // the daemons' log file
	keks    map[string][]byte
}

// kmsSource is where a datastore's keys come from.
type kmsSource interface {
	env() []string   // for every command
	flags() []string // for init, mount and export
	config() string  // a kms.toml that tells how to reach the server
}

// embedded is the development KMS inside the daemon: mount --dev.
type embedded struct{ dir string }

func (e embedded) env() []string   { return []string{"VMCRYPTFS_DEVKMS=" + e.dir} }
func (e embedded) flags() []string { return []string{"--dev"} }
func (e embedded) config() string  { return filepath.Join(e.dir, "kms.toml") }

// newDatastore mounts a new datastore the way of the first five minutes: --dev over an
// empty directory.
func newDatastore(t testing.TB, options ...string) *datastore {
	t.Helper()
	d := newUnmounted(t, embedded{filepath.Join(t.TempDir(), "devkms")}, options...)
	d.mount()
	return d
}

// newUnmounted makes the directories alone.
func newUnmounted(t testing.TB, kms kmsSource, options ...string) *datastore {
	t.Helper()
	top := t.TempDir()
	d := &datastore{
		t: t, kms: kms, options: options, keks: map[string][]byte{},
		backing: filepath.Join(top, "backing"),
		mnt:     filepath.Join(top, "mnt"),
	}
	for _, dir := range []string{d.backing, d.mnt} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(d.cleanup)
	return d
}

// onTmpfs puts an empty tmpfs where BACKING is; before the first mount.
func (d *datastore) onTmpfs() *datastore {
	d.t.Helper()
	if err := unix.Mount("tmpfs", d.backing, "tmpfs", 0, "size=2g"); err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { _ = unix.Unmount(d.backing, unix.MNT_DETACH) })
	return d
}

// command runs vmcryptfs with this datastore's key server in the environment.
func (d *datastore) command(args ...string) result {
	d.t.Helper()
	return run(d.t, d.kms.env(), append([]string{program(d.t)}, args...)...)
}

// must is command that has to succeed.
func (d *datastore) must(args ...string) result {
	d.t.Helper()
	r := d.command(args...)
	if r.code != 0 {
		d.t.Fatal(r)
	}
	return r
}

// tryMount runs the mount command; on success the daemon's process id is known.
func (d *datastore) tryMount() result {
	d.t.Helper()
	args := append([]string{"mount"}, d.kms.flags()...)
	args = append(append(args, d.options...), d.backing, d.mnt)
	r := d.command(args...)
	if r.code == 0 {
		s := d.status()
		d.pid, d.log = s.PID, s.Log
	}
	return r
}

func (d *datastore) mount() {
	d.t.Helper()
	if r := d.tryMount(); r.code != 0 {
		d.t.Fatal(r)
	}
}

// unmount unmounts and waits for the daemon, which must end by itself.
func (d *datastore) unmount() {
	d.t.Helper()
	d.must("umount", d.mnt)
	d.awaitExit()
}

// remount is unmount and mount: everything cached is gone after it.
func (d *datastore) remount() {
	d.t.Helper()
	d.unmount()
	d.mount()
}

// kill ends the daemon at once, in the middle of whatever it does, and removes the dead
// mount.
func (d *datastore) kill() {
	d.t.Helper()
	if err := unix.Kill(d.pid, unix.SIGKILL); err != nil {
		d.t.Fatalf("kill daemon %d: %v", d.pid, err)
	}
	d.awaitExit()
	if err := unix.Unmount(d.mnt, unix.MNT_DETACH); err != nil {
		d.t.Fatalf("unmount %s after kill: %v", d.mnt, err)
	}
}

// awaitExit waits for the daemon's end. (Our process 1 reaps it.)
func (d *datastore) awaitExit() {
	d.t.Helper()
	if err := awaitExit(d.pid); err != nil {
		d.t.Fatal(err)
	}
	d.pid = 0
}

// awaitExit waits until process pid is no more.
func awaitExit(pid int) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if err == unix.ESRCH {
		return nil
	}
	if err != nil {
		return fmt.Errorf("pidfd of %d: %w", pid, err)
	}
	defer func() { _ = unix.Close(fd) }()
	poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(poll, int(patience.Milliseconds()))
		switch {
		case err == unix.EINTR:
		case err != nil:
			return fmt.Errorf("wait for process %d: %w", pid, err)
		case n == 0:
			return fmt.Errorf("process %d still runs after %v", pid, patience)
		default:
			return nil
		}
	}
}

// readLog is what all daemons of this datastore logged.
func (d *datastore) readLog() string {
	d.t.Helper()
	b, err := os.ReadFile(d.log)
	if err != nil {
		d.t.Errorf("daemon's log: %v", err)
	}
	return string(b)
}

// cleanup takes down what is left, also after a failure half-way, and looks for a crash
// in the daemon's log.
func (d *datastore) cleanup() {
	_ = unix.Unmount(d.mnt, unix.MNT_DETACH)
	if d.log != "" {
		log := d.readLog()
		if strings.Contains(log, "panic") || strings.Contains(log, "fatal error") || strings.Contains(log, "goroutine ") {
			d.t.Errorf("the daemon crashed:\n%s", log)
		}
		if d.t.Failed() {
			d.t.Logf("the daemon's log:\n%s", log[max(0, len(log)-8192):])
		}
	}
	if d.pid == 0 {
		return
	}
	_ = unix.Kill(d.pid, unix.SIGCONT)
	_ = unix.Kill(d.pid, unix.SIGKILL)
	if err := awaitExit(d.pid); err != nil {
		d.t.Error(err)
	}
}

// status is what `status --json` promises (design §7), as far as tests ask.
type status struct {
	PID        int    `json:"pid"`
	Version    string `json:"version"`
	Backing    string `json:"backing"`
	Mountpoint string `json:"mountpoint"`
	Transport  string `json:"transport"`
	Cipher     string `json:"cipher"`
	Log        string `json:"log"`
	IO         struct {
		OpenFiles int64 `json:"open_files"`
		Damaged   int64 `json:"damaged"`
		Denied    int64 `json:"denied"`
		NoKey     int64 `json:"no_key"`
	} `json:"io"`
}

func (d *datastore) status() status {
	d.t.Helper()
	var s status
	text := d.must("status", d.mnt, "--json").stdout
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		d.t.Fatalf("status --json: %v\n%s", err, text)
	}
	if s.PID <= 1 {
		d.t.Fatalf("status --json tells no pid:\n%s", text)
	}
	return s
}

// path is a name seen through the mount; below is the same name in BACKING.
func (d *datastore) path(name string) string  { return filepath.Join(d.mnt, name) }
func (d *datastore) below(name string) string { return filepath.Join(d.backing, name) }

// write makes a file through the mount.
func (d *datastore) write(name string, content []byte) {
	d.t.Helper()
	if err := os.WriteFile(d.path(name), content, 0o644); err != nil {
		d.t.Fatal(err)
	}
}

// read gives a file's content through the mount.
func (d *datastore) read(name string) []byte {
	d.t.Helper()
	b, err := os.ReadFile(d.path(name))
	if err != nil {
		d.t.Fatal(err)
	}
	return b
}

// form is "encrypted", "clear" or "empty": what BACKING holds under name.
func (d *datastore) form(name string) string {
	d.t.Helper()
	form, err := formOf(d.below(name))
	if err != nil {
		d.t.Fatal(err)
	}
	return form
}

// wantForms checks the form of several files: name → form.
func (d *datastore) wantForms(want map[string]string) {
	d.t.Helper()
	for name, form := range want {
		if got := d.form(name); got != form {
			d.t.Errorf("%s is %s in BACKING, want %s", name, got, form)
		}
	}
}

// absent checks that BACKING has nothing of that name.
func (d *datastore) absent(names ...string) {
	d.t.Helper()
	for _, name := range names {
		if _, err := os.Lstat(d.below(name)); !os.IsNotExist(err) {
			d.t.Errorf("%s is in BACKING (%v), want nothing", name, err)
		}
	}
}

// mountFlags is a mount's line in /proc/self/mounts, "" when there is none.
func mountLine(t testing.TB, mnt string) string {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if fields := strings.Fields(line); len(fields) > 1 && fields[1] == mnt {
			return line
		}
	}
	return ""
}
