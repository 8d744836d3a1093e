package fs

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vmcryptfs/layout"
)

// newLoggedOn is a rig on a new tmpfs with options, with its log.
func newLoggedOn(t *testing.T, options string) (*rig, *lines) {
	t.Helper()
	dir := t.TempDir()
	at := filepath.Join(dir, "backing")
	if err := os.Mkdir(at, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", at, "tmpfs", 0, options); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(at, 0); err != nil {
			t.Errorf("unmount %s: %v", at, err)
		}
	})
	log := new(lines)
	return newRigAt(t, dir, func(_ *layout.Settings, c *Config) { c.Log = slog.New(slog.NewTextHandler(log, nil)) }), log
}

// fill writes to a new file of the mount until a write is refused.
func (r *rig) fill(name string) *os.File {
	r.t.Helper()
	f := r.open(name, os.O_RDWR|os.O_CREATE)
	var err error
	for off := int64(0); err == nil; off += 64 << 10 {
		_, err = f.WriteAt(make([]byte, 64<<10), off)
	}
	if !errors.Is(err, unix.ENOSPC) {
		r.t.Fatalf("fill: %v", err)
	}
	return f
}

// TestToldFull: the file without room is in the log with its name, once, and BACKING with its room.
func TestToldFull(t *testing.T) {
	r, log := newLoggedOn(t, "size=2m,nr_inodes=1000")
	f := r.fill("vm.img")
	for range 100 {
		if _, err := f.WriteAt(make([]byte, 64<<10), 64<<20); !errors.Is(err, unix.ENOSPC) {
			t.Fatalf("write to a full BACKING: %v", err)
		}
	}
	if got := log.with(`msg="write: error of BACKING" file=vm.img errno=ENOSPC `); got != 1 || log.with("error of BACKING") != 1 {
		t.Errorf("%d lines of the file:\n%s", got, log.text.String())
	}
	var st unix.Statfs_t
	if err := unix.Statfs(r.backing, &st); err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf(`msg="BACKING is full" backing=%s errno=ENOSPC free_bytes=%d free_inodes=%d advice="`, r.backing, st.Bavail*uint64(st.Frsize), st.Ffree)
	if log.with(want) != 1 || log.with("BACKING is full") != 1 {
		t.Errorf("not one line %q:\n%s", want, log.text.String())
	}
}

// TestToldNoInodes: the same where there is room, and no inode.
func TestToldNoInodes(t *testing.T) {
	r, log := newLoggedOn(t, "size=8m,nr_inodes=40")
	var err error
	made := 0
	for ; err == nil && made < 100; made++ {
		err = os.Mkdir(r.path(fmt.Sprint("d", made)), 0o755)
	}
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
	if want := fmt.Sprintf(`msg="mkdir: error of BACKING" file=d%d errno=ENOSPC `, made-1); log.with(want) != 1 {
		t.Errorf("not one line %q:\n%s", want, log.text.String())
	}
	if full := regexp.MustCompile(`BACKING is full.* free_bytes=[1-9]\d+ free_inodes=0 `); !full.MatchString(log.text.String()) {
		t.Errorf("no line like %v:\n%s", full, log.text.String())
	}
}

// TestToldFailuresAreBounded: a caller that makes ever new names in a full BACKING neither fills
// the log nor keeps other errors out of the log.
func TestToldFailuresAreBounded(t *testing.T) {
	r, log := newLoggedOn(t, "size=8m,nr_inodes=40")
	later := r.stopClock()
	names := 0
	refuse := func(n int, pause time.Duration) {
		for range n {
			names++
			if err := os.Mkdir(r.path(fmt.Sprint("d", names)), 0o755); err != nil && !errors.Is(err, unix.ENOSPC) {
				t.Fatal(err)
			}
			later(pause)
		}
	}
	refuse(100, 0)
	if got := log.with("mkdir: error of BACKING"); got != mostAlike {
		t.Errorf("%d lines at once, want %d", got, mostAlike)
	}
	refuse(1000, atOnce/mostAlike)
	if got := log.with("mkdir: error of BACKING"); got != mostFailures || log.with("only counted") != 1 {
		t.Errorf("%d lines in all, %d of them the last, want %d and one", got, log.with("only counted"), mostFailures)
	}
	root := r.fs.root()
	r.fs.status(ofNode("readdir", root), unix.EIO)
	if log.with(`msg="readdir: error of BACKING" file=. errno=EIO `) != 1 {
		t.Error("no room for another error")
	}
	if got := r.fs.Stats().BackingErrors; got < 1000 {
		t.Errorf("counted %d", got)
	}
	later(toldFor)
	refuse(1, 0)
	if got := log.with("mkdir: error of BACKING"); got != mostFailures+1 || log.with("BACKING is full") != 2 {
		t.Errorf("after %v: %d lines in all, %d of BACKING", toldFor, got, log.with("BACKING is full"))
	}
	if got := len(r.fs.failures.told[unix.ENOSPC]); got > mostFailures {
		t.Errorf("%d remembered", got)
	}
}

// TestPutOff: a failure not logged for the sake of too many others is logged when the request fails
// again.
func TestPutOff(t *testing.T) {
	r, log := newLoggedOn(t, "size=8m")
	later := r.stopClock()
	root := r.fs.root()
	all := func() {
		for i := range 12 {
			for _, op := range []string{"write", "fsync", "create"} {
				r.fs.status(ofName(op, root, fmt.Sprintf("vm%d.", i)), unix.EIO)
			}
		}
	}
	for range 20 {
		before := log.with("error of BACKING")
		all()
		if got := log.with("error of BACKING") - before; got > mostAtOnce {
			t.Fatalf("%d lines at once", got)
		}
		later(atOnce)
	}
	for i := range 12 {
		if got := log.with(fmt.Sprintf("file=vm%d. ", i)); got != 3 {
			t.Errorf("vm%d: %d lines, want one of each operation", i, got)
		}
	}
}

// TestNotTold: a refusal for the caller's own sake is not in the log.
func TestNotTold(t *testing.T) {
	r, log := newLoggedOn(t, "size=8m")
	r.write("a.img", "secret")
	if err := os.MkdirAll(r.path("dir/full"), 0o755); err != nil {
		t.Fatal(err)
	}
	a := r.path("a.img")
	for what, try := range map[string]func() error{
		"open of none":      func() error { _, err := os.Open(r.path("none")); return err },
		"mkdir of a name":   func() error { return unix.Mkdir(a, 0o755) },
		"rmdir, not empty":  func() error { return unix.Rmdir(r.path("dir")) },
		"unlink of a dir":   func() error { return unix.Unlink(r.path("dir")) },
		"rename into self":  func() error { return unix.Rename(r.path("dir"), r.path("dir/full/x")) },
		"link of a name":    func() error { return unix.Link(a, a) },
		"attribute of none": func() error { _, err := unix.Getxattr(a, "user.none", nil); return err },
		"removed attribute": func() error { return unix.Removexattr(a, "user.none") },
		"seek past the end": func() error { _, err := r.open("a.img", os.O_RDONLY).Seek(1<<20, unix.SEEK_DATA); return err },
		"name too long":     func() error { return unix.Mkdir(r.path(strings.Repeat("x", 300)), 0o755) },
		"reserved name":     func() error { return unix.Mkdir(r.path(layout.ReservedPrefix+"-x"), 0o755) },
	} {
		if try() == nil {
			t.Errorf("%s works", what)
		}
	}
	for _, err := range []error{unix.ESTALE, layout.ErrDamaged, unix.EACCES} {
		r.fs.status(ofNode("open", r.fs.root()), err)
	}
	r.fs.SetReadOnly(true)
	r.fs.status(ofNode("open", r.fs.root()), unix.EROFS)
	if got := log.with("level=ERROR"); got != 0 {
		t.Errorf("%d lines:\n%s", got, log.text.String())
	}
}

// TestToldDescriptor: a descriptor that cannot be encrypted for a write, since BACKING is full, is
// in the log once, not as an error and as a refusal.
func TestToldDescriptor(t *testing.T) {
	r, log := newLoggedOn(t, "size=2m")
	r.write("vm.vmdk", descriptor)
	r.wantForm("vm.vmdk", "clear")
	r.fill("vm.img")
	for range 10 {
		if err := os.Truncate(r.path("vm.vmdk"), 3); !errors.Is(err, unix.ENOSPC) {
			t.Fatalf("truncate: %v", err)
		}
	}
	if log.with(`msg="setattr: error of BACKING" file=vm.vmdk errno=ENOSPC `) != 1 || log.with("file=vm.vmdk") != 1 {
		t.Errorf("not one line:\n%s", log.text.String())
	}
	r.wantRead("vm.vmdk", descriptor)
}
