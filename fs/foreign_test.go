package fs

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"vmcryptfs/fs/ability"
	"vmcryptfs/fs/datastore"
	"vmcryptfs/integration/otherfs"
	"vmcryptfs/keys"
	"vmcryptfs/layout"
)

// newRigOn is a rig whose BACKING is a file system that mount mounts at a directory.
func newRigOn(t *testing.T, mount func(dir string)) *rig {
	t.Helper()
	dir := t.TempDir()
	at := filepath.Join(dir, "backing")
	if err := os.Mkdir(at, 0o755); err != nil {
		t.Fatal(err)
	}
	mount(at)
	return newRigAt(t, dir, nil)
}

// TestForeign: whatever BACKING's file system is, a new file can be used as any other.
func TestForeign(t *testing.T) {
	for _, kind := range otherfs.Kinds() {
		t.Run(kind, func(t *testing.T) {
			r := newRigOn(t, func(dir string) { otherfs.Mount(t, kind, dir) })
			t.Run("new", func(t *testing.T) { r.tryNew(t) })
			t.Run("renamed", func(t *testing.T) { r.tryRenamed(t) })
			t.Run("linked", func(t *testing.T) { r.tryLinked(t) })
			t.Run("removed", func(t *testing.T) { r.tryRemoved(t) })
			t.Run("converted", func(t *testing.T) { r.tryConverted(t) })
			t.Run("nameless", func(t *testing.T) { r.tryNameless(t) })
			t.Run("by others", func(t *testing.T) { r.tryByOthers(t) })
			r.idle()
			r.remount()
			r.wantRead("moved/new.img", "new, and more")
			r.wantRead("converted.img", "a log")
			r.wantNoLeftovers()
		})
	}
}

// TestForeignRemovedName: parts of units are read by the first name of a file, and then, with the
// first name gone, by another name still.
func TestForeignRemovedName(t *testing.T) {
	r := newRigOn(t, func(dir string) { otherfs.Mount(t, "hard_remove", dir) })
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	first := r.open("a.img", os.O_RDWR|os.O_CREATE)
	_, err := first.Write(make([]byte, 16<<10))
	must(err)
	_, err = first.WriteAt([]byte("parts"), 100)
	must(err)
	must(os.Link(r.path("a.img"), r.path("b.img")))
	must(os.Remove(r.path("a.img")))
	reader := r.open("b.img", os.O_RDONLY)
	must(first.Close())
	r.idleBut(1) // till then a.img is what is open
	writer := r.open("b.img", os.O_RDWR)
	_, err = writer.WriteAt(make([]byte, 8<<10), 4<<10)
	must(err)
	_, err = writer.WriteAt([]byte("parts"), 5000)
	must(err)
	must(errors.Join(writer.Close(), reader.Close()))
}

func (r *rig) tryNew(t *testing.T) {
	r.write("new.img", "new")
	r.wantForm("new.img", "encrypted")
	r.wantRead("new.img", "new")
	f := r.open("new.img", os.O_RDWR|os.O_APPEND)
	if _, err := f.WriteString(", and more"); err != nil {
		t.Error(err)
	}
	if err := errors.Join(f.Sync(), os.Chmod(r.path("new.img"), 0o640)); err != nil {
		t.Error(err)
	}
	r.wantSize(t, "new.img", 13)
	if err := os.Truncate(r.path("new.img"), 5000); err != nil {
		t.Error(err)
	}
	r.wantSize(t, "new.img", 5000)
	if err := errors.Join(f.Truncate(13), f.Close()); err != nil {
		t.Error(err)
	}
	r.wantRead("new.img", "new, and more")
	if _, err := os.OpenFile(r.path("new.img"), os.O_CREATE|os.O_EXCL, 0o600); !errors.Is(err, os.ErrExist) {
		t.Errorf("made a second time: %v", err)
	}
}

func (r *rig) wantSize(t *testing.T, name string, want int64) {
	t.Helper()
	info, err := os.Stat(r.path(name))
	if err != nil {
		t.Error(err)
	} else if info.Size() != want {
		t.Errorf("%s has %d bytes, want %d", name, info.Size(), want)
	}
}

func (r *rig) tryRenamed(t *testing.T) {
	if err := os.Mkdir(r.path("dir"), 0o755); err != nil {
		t.Fatal(err)
	}
	r.write("other.img", "other")
	for _, names := range [][2]string{{"new.img", "other.img"}, {"other.img", "dir/new.img"}, {"dir", "moved"}} {
		if err := os.Rename(r.path(names[0]), r.path(names[1])); err != nil {
			t.Errorf("%v: %v", names, err)
		}
	}
	r.wantRead("moved/new.img", "new, and more")
	r.wantSize(t, "moved/new.img", 13)
}

// tryLinked: a file whose first name is gone is there by the other. Where BACKING takes the names
// for two files, the file has one name only.
func (r *rig) tryLinked(t *testing.T) {
	r.write("first.img", "linked")
	err := os.Link(r.path("first.img"), r.path("second.img"))
	if r.fs.Abilities().Lacks(ability.LinkNumber) {
		wantErrno(t, "link", err, unix.EPERM)
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	r.wantRead("second.img", "linked")
	for _, gone := range []string{"first.img", "second.img"} {
		if err := os.Remove(r.path(gone)); err != nil {
			t.Fatal(err)
		}
		if gone == "first.img" {
			r.wantRead("second.img", "linked")
			if err := os.Link(r.path("second.img"), r.path("third.img")); err != nil {
				t.Fatal(err)
			}
		}
	}
	r.wantRead("third.img", "linked")
	r.wantSize(t, "third.img", 6)
}

func (r *rig) tryRemoved(t *testing.T) {
	for _, name := range []string{"removed.img", "removed.log"} {
		r.write(name, "open")
		f := r.open(name, os.O_RDWR)
		if err := os.Remove(r.path(name)); err != nil {
			t.Error(err)
		}
		if _, err := f.WriteAt([]byte("still "), 0); err != nil {
			t.Error(err)
		}
		b, err := io.ReadAll(f)
		if err != nil || string(b) != "still " {
			t.Errorf("%s holds %q, %v", name, b, err)
		}
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}
}

// tryConverted: a file changes its form, with and without a handle open.
func (r *rig) tryConverted(t *testing.T) {
	r.write("converted.log", "a log")
	r.wantForm("converted.log", "clear")
	f := r.open("converted.log", os.O_RDWR)
	if err := os.Rename(r.path("converted.log"), r.path("converted.img")); err != nil {
		t.Fatal(err)
	}
	r.wantForm("converted.img", "encrypted")
	b, err := io.ReadAll(f)
	if err != nil || string(b) != "a log" {
		t.Errorf("who has it open reads %q, %v", b, err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	r.wantRead("converted.img", "a log")
	r.wantSize(t, "converted.img", 5)
	r.plant("empty.img", "")
	r.write("empty.img", "filled") // the form comes with the first byte
	r.wantRead("empty.img", "filled")
	r.wantForm("empty.img", "encrypted")
}

// tryNameless: a file without a name works, or O_TMPFILE is refused as on a file system without it.
func (r *rig) tryNameless(t *testing.T) {
	fd, err := unix.Open(r.mnt, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if r.fs.Abilities().Lacks(ability.Unlinked) {
		wantErrno(t, "O_TMPFILE", err, unix.EOPNOTSUPP)
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "nameless")
	if _, err := f.WriteString("nameless"); err != nil {
		t.Error(err)
	}
	b := make([]byte, 8)
	if _, err := f.ReadAt(b, 0); err != nil || string(b) != "nameless" {
		t.Errorf("it holds %q, %v", b, err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
}

// tryByOthers: a file that others put in the place of another in BACKING is found, and not taken
// for the former.
func (r *rig) tryByOthers(t *testing.T) {
	r.write("mine.log", "mine")
	r.write("theirs.log", "theirs, longer")
	r.idle()
	if err := os.Rename(r.under("theirs.log"), r.under("mine.log")); err != nil {
		t.Fatal(err)
	}
	r.until("the other file is found", func() bool {
		b, err := os.ReadFile(r.path("mine.log"))
		if err == nil && string(b) != "mine" && string(b) != "theirs, longer" {
			t.Fatalf("it holds %q", b)
		}
		return err == nil && string(b) == "theirs, longer"
	})
}

// wantNoLeftovers: no temporary is left, and no file of a probe.
func (r *rig) wantNoLeftovers() {
	r.t.Helper()
	for _, pattern := range []string{".vmcryptfs-*", ".vmcryptfs/.*", ".fuse_hidden*"} {
		found, err := filepath.Glob(filepath.Join(r.backing, pattern))
		if err != nil || len(found) > 0 {
			r.t.Errorf("left: %q, %v", found, err)
		}
	}
}

// TestNoLinks: where BACKING refuses hard links, with any errno, and has only plain renames, a new
// file gets its name all the same, and replaces nobody's.
func TestNoLinks(t *testing.T) {
	for _, rename := range []unix.Errno{0, unix.EINVAL} {
		for _, link := range []unix.Errno{unix.EPERM, unix.ENOSYS, unix.EOPNOTSUPP, unix.EACCES, unix.EMLINK, unix.EINVAL} {
			t.Run(unix.ErrnoName(link)+unix.ErrnoName(rename), func(t *testing.T) {
				r := newRigOn(t, func(dir string) {
					otherfs.Faulty(t, dir, otherfs.Faults{Link: link, Rename2: rename})
				})
				r.write("a.img", "no links")
				r.wantRead("a.img", "no links")
				r.wantForm("a.img", "encrypted")
				_, err := os.OpenFile(r.path("a.img"), os.O_CREATE|os.O_EXCL, 0o600)
				wantErrno(t, "make it again", err, unix.EEXIST)
				wantErrno(t, "link", os.Link(r.path("a.img"), r.path("b.img")), unix.EPERM)
				r.remount()
				r.wantRead("a.img", "no links")
				r.wantNoLeftovers()
			})
		}
	}
}

// TestFlagsPassedOver: where BACKING passes over the flags of a rename, renames that need flags are
// refused, and no file is lost by them.
func TestFlagsPassedOver(t *testing.T) {
	r := newRigOn(t, func(dir string) { otherfs.Faulty(t, dir, otherfs.Faults{NoFlags: true}) })
	names := []string{"a.img", "b.img", "c.log", "d.log"}
	for _, name := range names {
		r.write(name, name)
	}
	for _, flags := range []uint{unix.RENAME_EXCHANGE, unix.RENAME_WHITEOUT, unix.RENAME_WHITEOUT | unix.RENAME_NOREPLACE} {
		for _, from := range names {
			for _, to := range names {
				if from == to {
					continue
				}
				err := unix.Renameat2(unix.AT_FDCWD, r.path(from), unix.AT_FDCWD, r.path(to), flags)
				want := unix.EINVAL
				if flags&unix.RENAME_NOREPLACE != 0 {
					want = unix.EEXIST // the kernel has seen the file there
				}
				wantErrno(t, fmt.Sprintf("rename %s to %s, flags %d", from, to, flags), err, want)
			}
		}
	}
	wantErrno(t, "a new name", unix.Renameat2(unix.AT_FDCWD, r.path("a.img"), unix.AT_FDCWD, r.path("new.img"), unix.RENAME_NOREPLACE), 0)
	wantErrno(t, "and back", os.Rename(r.path("new.img"), r.path("a.img")), 0)
	r.remount()
	for _, name := range names {
		r.wantRead(name, name)
	}
}

// TestReserved: a name that other hands take before a plain rename stays theirs.
func TestReserved(t *testing.T) {
	r := newRig(t, nil)
	r.plant("temp", "new")
	r.plant("name", "somebody's")
	wantErrno(t, "rename", renameReserved(r.store.Fd(), "temp", "name"), unix.EEXIST)
	if b, err := os.ReadFile(r.under("name")); err != nil || string(b) != "somebody's" {
		t.Errorf("%q, %v", b, err)
	}
	wantErrno(t, "rename of nothing", renameReserved(r.store.Fd(), "nothing", "other"), unix.ENOENT)
	if _, err := os.Lstat(r.under("other")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("an empty file stays: %v", err)
	}
}

// TestUnfit: a BACKING that cannot keep the promises of a datastore is refused, with the reason.
func TestUnfit(t *testing.T) {
	for words, faults := range map[string]otherfs.Faults{
		"no locks":         {LockTwice: true},
		"no inode-numbers": {Numbers: true},
		"no extend":        {Extend: unix.EPERM},
	} {
		t.Run(words, func(t *testing.T) {
			dir := t.TempDir()
			otherfs.Faulty(t, dir, faults)
			kek, err := keys.NewKEK("test", testKEK, newFakeKMS().material[testKEK])
			if err != nil {
				t.Fatal(err)
			}
			defer kek.Wipe()
			host := datastore.NewHost(filepath.Join(t.TempDir(), "state"))
			s := layout.Settings{Format: 1, ID: keys.NewFileID(), Provider: "test", KEK: testKEK, Serial: 1}
			if err := host.Init(dir, s, kek); err != nil {
				t.Fatal(err)
			}
			store, err := host.Open(dir, true)
			if err != nil {
				t.Fatal(err)
			}
			defer store.Close()
			_, err = New(Config{Store: store})
			if !errors.Is(err, ability.ErrUnfit) || !strings.Contains(err.Error(), words) {
				t.Errorf("%v, want %v: %s", err, ability.ErrUnfit, words)
			}
			left, err := filepath.Glob(filepath.Join(dir, datastore.Dir, ".*"))
			if err != nil || len(left) > 0 {
				t.Errorf("left: %q, %v", left, err)
			}
		})
	}
}

// TestTestedWhenWritable: a read-only mount writes nothing to test BACKING; a mount made writable
// tests.
func TestTestedWhenWritable(t *testing.T) {
	r := newRigOn(t, func(dir string) { otherfs.Mount(t, "bindfs", dir) })
	r.unmount()
	r.config.ReadOnly = true
	r.mount()
	if f := r.fs.Abilities().Abilities[ability.Locks]; f.Answer != ability.Untried {
		t.Errorf("read-only: %+v", f)
	}
	if err := r.fs.SetReadOnly(false); err != nil {
		t.Fatal(err)
	}
	if f := r.fs.Abilities().Abilities[ability.Locks]; f.Answer != ability.Yes {
		t.Errorf("writable: %+v", f)
	}
}
