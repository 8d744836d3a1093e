package fs

import (
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vmcryptfs/fs/inode"
	"vmcryptfs/layout"
)

// stopClock mounts anew with a clock that stands still; the returned function adds time.
func (r *rig) stopClock() (later func(time.Duration)) {
	r.t.Helper()
	var passed atomic.Int64
	now := func() time.Time { return time.Unix(1e9, 0).Add(time.Duration(passed.Load())) }
	r.prepare = func(f *FS) { f.table.Now, f.told.now = now, now }
	r.remount()
	return func(d time.Duration) { passed.Add(int64(d)) }
}

// TestLostName: a removed name counts, for a while, for a caller between look-up and open.
func TestLostName(t *testing.T) {
	for what, lose := range map[string]func(r *rig, at inode.Place) error{
		"found gone": func(r *rig, at inode.Place) error {
			err := os.Remove(r.under(at.Name))
			if _, gone := lookedUp(r.fs, at); gone != unix.ENOENT {
				t.Errorf("look-up: %v", gone)
			}
			return err
		},
		"found another": func(r *rig, at inode.Place) error {
			r.plant("other", "")
			err := os.Rename(r.under("other"), r.under(at.Name))
			if n, err := lookedUp(r.fs, at); err == nil {
				r.fs.table.Forget(n.ID, 1)
			}
			return err
		},
		"renamed": func(r *rig, at inode.Place) error { return os.Rename(r.path(at.Name), r.path("b.log")) },
		"removed": func(r *rig, at inode.Place) error { return os.Remove(r.path(at.Name)) },
		"replaced": func(r *rig, at inode.Place) error {
			r.write("x.vmem", "")
			return os.Rename(r.path("x.vmem"), r.path(at.Name))
		},
	} {
		t.Run(what, func(t *testing.T) {
			r := newRig(t, nil)
			later := r.stopClock()
			tab := &r.fs.table
			r.write("vm.log", "line\n")
			r.open("vm.log", os.O_RDWR)
			if err := os.Link(r.under("vm.log"), r.under("vm.vmss")); err != nil {
				t.Fatal(err)
			}
			n, err := lookedUp(r.fs, tab.Root().In("vm.vmss"))
			if err != nil {
				t.Fatal(err)
			}
			defer tab.Forget(n.ID, 1)
			if err := lose(r, tab.Root().In("vm.vmss")); err != nil {
				t.Fatal(err)
			}
			wantErrno(t, "open of what was looked up by the lost name", r.openNode(n), unix.EACCES)
			later(inode.LostFor)
			wantErrno(t, "open when the name has been lost for long", r.openNode(n), 0)
		})
	}
}

// findGone looks up a name that other hands took, as the kernel does.
func (r *rig) findGone(name string) {
	r.t.Helper()
	_, err := lookedUp(r.fs, r.fs.table.Root().In(name))
	wantErrno(r.t, "look-up of "+name, err, unix.ENOENT)
}

// TestStaleName: other hands give an open log a name that is encrypted, and take the name again. No
// look-up of the name comes, and still the log can be opened after inode.LostFor.
func TestStaleName(t *testing.T) {
	for what, tt := range map[string]struct{ have, lose func(r *rig) error }{
		"linked": {
			func(r *rig) error { return os.Link(r.under("vm.log"), r.under("vm.log.txt")) },
			func(r *rig) error { return os.Remove(r.under("vm.log.txt")) },
		},
		"renamed": {
			func(r *rig) error { return os.Rename(r.under("vm.log"), r.under("vm.log.txt")) },
			func(r *rig) error { return os.Rename(r.under("vm.log.txt"), r.under("vm.log")) },
		},
		"in a directory": {
			func(r *rig) error {
				if err := os.Mkdir(r.under("vm.log.txt"), 0o755); err != nil {
					return err
				}
				return os.Link(r.under("vm.log"), r.under("vm.log.txt/vm.txt"))
			},
			func(r *rig) error { return os.RemoveAll(r.under("vm.log.txt")) },
		},
	} {
		t.Run(what, func(t *testing.T) {
			var log lines
			r := newRig(t, func(_ *layout.Settings, c *Config) { c.Log = slog.New(slog.NewTextHandler(&log, nil)) })
			later := r.stopClock()
			r.write("vm.log", "line\n")
			r.open("vm.log", os.O_RDWR)
			if err := tt.have(r); err != nil {
				t.Fatal(err)
			}
			for _, name := range []string{"vm.log.txt", "vm.log.txt/vm.txt"} {
				_, _ = os.Stat(r.path(name))
			}
			if err := tt.lose(r); err != nil {
				t.Fatal(err)
			}
			read := opening(unix.O_RDONLY)
			wantErrno(t, "open while the kernel may believe the name", read(r, "vm.log"), unix.EACCES)
			if log.with("try again in 10s") != 1 || log.with("remove") != 0 || log.with("txt") != 1 {
				t.Errorf("log:\n%s", log.text.String())
			}
			later(inode.LostFor)
			wantErrno(t, "open after that", read(r, "vm.log"), 0)
		})
	}
}

// TestRefusedNameIsTold: of a file's names, the log gives the encrypted one.
func TestRefusedNameIsTold(t *testing.T) {
	var log lines
	r := newRig(t, func(_ *layout.Settings, c *Config) { c.Log = slog.New(slog.NewTextHandler(&log, nil)) })
	r.write("vm.log", "line\n")
	r.open("vm.log", os.O_RDWR)
	if err := os.Link(r.under("vm.log"), r.under("vm.vmss")); err != nil {
		t.Fatal(err)
	}
	wantErrno(t, "open", opening(unix.O_RDONLY)(r, "vm.vmss"), unix.EACCES)
	if log.with("file=vm.vmss") != 1 || log.with("file=vm.log") != 0 {
		t.Errorf("log:\n%s", log.text.String())
	}
}

// TestLinkOfStaleName: a name that other hands took decides nothing about a log's next one.
func TestLinkOfStaleName(t *testing.T) {
	r := newRig(t, nil)
	r.write("vm.log", "line\n")
	r.open("vm.log", os.O_RDWR)
	if err := os.Link(r.under("vm.log"), r.under("vm.vmss")); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(r.path("vm.vmss")); err != nil {
		t.Fatal(err)
	}
	wantErrno(t, "link of a log with a name that is encrypted", os.Link(r.path("vm.log"), r.path("1.vmdk")), 0)
	if err := os.Remove(r.path("1.vmdk")); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(r.under("vm.vmss")); err != nil {
		t.Fatal(err)
	}
	wantErrno(t, "link of a log", os.Link(r.path("vm.log"), r.path("2.log")), 0)
	wantErrno(t, "link of a log to an encrypted name", os.Link(r.path("2.log"), r.path("3.vmdk")), 0)
	for _, name := range []string{"vm.log", "2.log", "3.vmdk"} {
		r.wantForm(name, "encrypted")
	}
}

// TestHarmlessLosses: a log may lose names of class clear without any consequence.
func TestHarmlessLosses(t *testing.T) {
	r := newRig(t, nil)
	r.write("vm.log", "line\n")
	for i := range 50 {
		name := r.path(fmt.Sprint(i, ".log"))
		if err := os.Link(r.path("vm.log"), name); err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
	}
	r.wantRead("vm.log", "line\n")
}

// TestLossBeforeProof: a name, clear by the built-in rules, is lost while these hold. By the
// settings' rules, proven meanwhile, the name is encrypted.
func TestLossBeforeProof(t *testing.T) {
	r := newRig(t, func(s *layout.Settings, _ *Config) { s.Encrypt = []string{"secret*"} })
	r.write("vm.log", "line\n")
	r.kms.down.Store(true)
	later := r.stopClock()
	if r.fs.sealed.Load() != nil {
		t.Fatal("the rules are proven: nothing is tested")
	}
	if err := os.Link(r.under("vm.log"), r.under("secret.log")); err != nil {
		t.Fatal(err)
	}
	n, err := lookedUp(r.fs, r.fs.table.Root().In("vm.log"))
	if err != nil {
		t.Fatal(err)
	}
	defer r.fs.table.Forget(n.ID, 1)
	if err := os.Remove(r.path("secret.log")); err != nil {
		t.Fatal(err)
	}
	wantErrno(t, "open by the built-in rules", r.openNode(n), 0)
	r.kms.down.Store(false)
	r.cache.Unlock() // forgets the failure
	r.write("proof.img", "")
	wantErrno(t, "open by the proven rules", r.openNode(n), unix.EACCES)
	later(inode.LostFor)
	wantErrno(t, "open when the name has been lost for long", r.openNode(n), 0)
}

// TestBindingByLostName: a descriptor stays encrypted, and works, as long as an open by a lost name
// could come. Then the descriptor turns clear.
func TestBindingByLostName(t *testing.T) {
	r := newRig(t, nil)
	later := r.stopClock()
	r.write("a.txt", descriptor)
	if err := os.Rename(r.under("a.txt"), r.under("disk.vmdk")); err != nil {
		t.Fatal(err)
	}
	f := r.open("disk.vmdk", os.O_RDWR|os.O_APPEND)
	r.findGone("a.txt")
	if _, err := f.WriteString("# more\n"); err != nil {
		t.Fatal(err)
	}
	wantErrno(t, "open and close", opening(unix.O_RDONLY)(r, "disk.vmdk"), 0)
	r.wantForm("disk.vmdk", "encrypted")
	r.wantRead("disk.vmdk", descriptor+"# more\n")
	r.idleBut(1) // a release binds, too
	later(inode.LostFor)
	wantErrno(t, "open and close", opening(unix.O_RDONLY)(r, "disk.vmdk"), 0)
	r.wantForm("disk.vmdk", "clear")
}

// TestRenameByLostName: the same for a file of unknown kind, renamed to a log.
func TestRenameByLostName(t *testing.T) {
	r := newRig(t, nil)
	r.stopClock()
	r.write("vm.vmss", "memory")
	if err := os.Rename(r.under("vm.vmss"), r.under("x.txt")); err != nil {
		t.Fatal(err)
	}
	n, err := lookedUp(r.fs, r.fs.table.Root().In("x.txt"))
	if err != nil {
		t.Fatal(err)
	}
	defer r.fs.table.Forget(n.ID, 1)
	r.findGone("vm.vmss")
	if err := os.Rename(r.path("x.txt"), r.path("x.log")); err != nil {
		t.Fatal(err)
	}
	r.wantForm("x.log", "encrypted")
	wantErrno(t, "open", r.openNode(n), 0)
	r.wantRead("x.log", "memory")
}

// TestPlantedLog: cleartext that an administrator put under a wrong name, and renamed through the
// mount, opens after a while, and the log says so.
func TestPlantedLog(t *testing.T) {
	var log lines
	r := newRig(t, func(_ *layout.Settings, c *Config) { c.Log = slog.New(slog.NewTextHandler(&log, nil)) })
	later := r.stopClock()
	r.plant("d.txt", "line\n")
	if err := os.Rename(r.path("d.txt"), r.path("d.log")); err != nil {
		t.Fatal(err)
	}
	wantErrno(t, "open", opening(unix.O_RDONLY)(r, "d.log"), unix.EACCES)
	if log.with("file=d.log name=d.txt") != 1 || log.with("try again in 10s") != 1 || log.with("remove") != 0 {
		t.Errorf("log:\n%s", log.text.String())
	}
	later(inode.LostFor)
	r.wantRead("d.log", "line\n")
	if n := strings.Count(log.text.String(), "refused"); n != 1 {
		t.Errorf("%d lines of refusals", n)
	}
}
