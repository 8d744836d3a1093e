package fs

import (
	"context"
	"errors"
	"os"
	"strconv"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"vmcryptfs/layout"
)

func (r *rig) rename(from, to string) error { return unix.Rename(r.path(from), r.path(to)) }

func (r *rig) exchange(a, b string) error {
	return unix.Renameat2(unix.AT_FDCWD, r.path(a), unix.AT_FDCWD, r.path(b), unix.RENAME_EXCHANGE)
}

// sealBy mounts anew, with another way to change the settings.
func (r *rig) sealBy(seal func(context.Context, func(*layout.Settings) error) error) {
	r.t.Helper()
	r.unmount()
	r.config.Seal = seal
	r.mount()
}

// TestRenameBetweenPlaces: a rename leaves form and KEK, but for cleartext that comes to where its
// name encrypts.
func TestRenameBetweenPlaces(t *testing.T) {
	r := newPlacesRig(t, []layout.Place{at(1, "g", "gold"), at(2, "c", "clear"), at(3, "d", "clear")})
	big := make([]byte, maxConvert+1)
	for _, name := range []string{"x.img", "g/y.img", "c/z.img", "c/z2.img", "g/u.txt", "g/v.txt"} {
		r.write(name, "content")
	}
	r.write("c/big.img", string(big))
	for _, c := range []struct {
		from, to, want string
		errno          unix.Errno
	}{
		{"x.img", "g/x.img", "kek-1", 0},
		{"g/x.img", "c/x.img", "kek-1", 0}, // nothing turns clear because of a policy
		{"c/x.img", "c/x2.img", "kek-1", 0},
		{"g/v.txt", "c/v.log", "clear", 0}, // by the rules, which no policy has to do with
		{"g/u.txt", "c/u.txt", "kek-2", 0},
		{"c/u.txt", "c/u.log", "kek-2", 0}, // both names are clear
		{"c/z.img", "d/z.img", "clear", 0},
		{"d/z.img", "g/z.img", "kek-2", 0},
		{"c/z2.img", "z2.img", "kek-1", 0},
		{"c/big.img", "big.img", "", unix.EXDEV},
		{"c/big.img", "d/big.img", "clear", 0},
	} {
		err := r.rename(c.from, c.to)
		wantErrno(t, c.from+" to "+c.to, err, c.errno)
		if c.errno != 0 {
			continue
		}
		got := r.form(c.to)
		if got == "encrypted" {
			got = r.kekOf(c.to)
		}
		if got != c.want {
			t.Errorf("%s to %s: %s, want %s", c.from, c.to, got, c.want)
		}
	}
	r.wantRead("g/z.img", "content")
}

// TestRenameOpenBetweenPlaces: handles go on when a rename encrypts their file.
func TestRenameOpenBetweenPlaces(t *testing.T) {
	r := newPlacesRig(t, []layout.Place{at(1, "g", "gold"), at(2, "c", "clear")})
	r.write("c/x.img", "content")
	open := r.open("c/x.img", os.O_RDWR)
	wantErrno(t, "rename", r.rename("c/x.img", "g/x.img"), 0)
	if _, err := open.WriteAt([]byte("more"), 7); err != nil {
		t.Error(err)
	}
	r.wantKEK("g/x.img", "kek-2")
	r.wantRead("g/x.img", "contentmore")
}

// TestLinkAcrossPlaces: a link to where the name encrypts converts a short file in clear, at both
// names.
func TestLinkAcrossPlaces(t *testing.T) {
	r := newPlacesRig(t, []layout.Place{at(1, "g", "gold"), at(2, "c", "clear")})
	r.write("c/x.img", "content")
	wantErrno(t, "link", os.Link(r.path("c/x.img"), r.path("g/x.img")), 0)
	r.wantKEK("g/x.img", "kek-2")
	r.wantKEK("c/x.img", "kek-2")
	r.write("c/big.img", string(make([]byte, maxConvert+1)))
	wantErrno(t, "link of a long file", os.Link(r.path("c/big.img"), r.path("big.img")), unix.EXDEV)
	r.write("g/y.img", "content")
	wantErrno(t, "link to a clear place", os.Link(r.path("g/y.img"), r.path("c/y.img")), 0)
	r.wantKEK("c/y.img", "kek-2")
}

// TestTmpfileOfPlace: a file without a name has its directory's KEK, and keeps it when it is linked.
func TestTmpfileOfPlace(t *testing.T) {
	r := newPlacesRig(t, []layout.Place{at(1, "g", "gold"), at(2, "c", "clear")})
	for to, want := range map[string]string{"x.img": "kek-2", "g/x.img": "kek-2", "c/x.img": "kek-2", "x.log": "clear"} {
		fd, err := unix.Open(r.path("g"), unix.O_TMPFILE|unix.O_RDWR, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		f := os.NewFile(uintptr(fd), "tmpfile")
		if _, err := f.WriteString("content"); err != nil {
			t.Error(err)
		}
		err = unix.Linkat(unix.AT_FDCWD, "/proc/self/fd/"+strconv.Itoa(fd), unix.AT_FDCWD, r.path(to), unix.AT_SYMLINK_FOLLOW)
		wantErrno(t, "link as "+to, err, 0)
		f.Close()
		got := r.form(to)
		if got == "encrypted" {
			got = r.kekOf(to)
		}
		if got != want {
			t.Errorf("%s: %s, want %s", to, got, want)
		}
	}
}

// TestPlaceRenamed: places follow their directories, alone or below the directory renamed.
func TestPlaceRenamed(t *testing.T) {
	r := newPlacesRig(t, []layout.Place{at(1, "vms/g", "gold"), at(2, "vms/g/c", "clear"), at(3, "other", "gold")})
	r.mkdir("new/deep")
	serial := r.store.Settings().Serial
	r.write("vms/x.img", "content")
	wantErrno(t, "rename of a file", r.rename("vms/x.img", "vms/y.img"), 0)
	wantErrno(t, "rename of a directory without places", r.rename("new/deep", "new/deeper"), 0)
	if now := r.store.Settings().Serial; now != serial {
		t.Errorf("settings were sealed %d times", now-serial)
	}
	wantErrno(t, "above", r.rename("vms", "moved"), 0)
	r.wantPlaces(map[string]byte{"moved/g": 1, "moved/g/c": 2, "other": 3})
	wantErrno(t, "the place", r.rename("moved/g", "new/deeper/g"), 0)
	r.wantPlaces(map[string]byte{"new/deeper/g": 1, "new/deeper/g/c": 2, "other": 3})
	for name, want := range map[string]string{"new/deeper/g/x.img": "kek-2", "new/deeper/g/c/x.img": "clear", "new/deeper/x.img": "kek-1"} {
		if got := r.made(name); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
	bad := "new/\xff"
	wantErrno(t, "to no UTF-8", r.rename("new/deeper", bad), unix.EINVAL)
	r.wantPlaces(map[string]byte{"new/deeper/g": 1, "new/deeper/g/c": 2, "other": 3})
	r.mkdir("full/x")
	wantErrno(t, "over a directory that is not empty", r.rename("new/deeper", "full"), unix.ENOTEMPTY)
	r.wantPlaces(map[string]byte{"new/deeper/g": 1, "new/deeper/g/c": 2, "other": 3})
}

// TestPlaceExchanged: in an exchange the places of both sides move.
func TestPlaceExchanged(t *testing.T) {
	r := newPlacesRig(t, []layout.Place{at(1, "a", "clear"), at(2, "b/g", "gold"), at(3, "x", "gold"), at(4, "y", "vm")}[:3])
	r.mkdir("z")
	wantErrno(t, "exchange", r.exchange("a", "b"), 0)
	r.wantPlaces(map[string]byte{"b": 1, "a/g": 2, "x": 3})
	for name, want := range map[string]string{"a/x.img": "kek-1", "b/x.img": "clear", "a/g/x.img": "kek-2"} {
		if got := r.made(name); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
	wantErrno(t, "exchange of two places", r.exchange("x", "b"), unix.EXDEV)
	r.wantPlaces(map[string]byte{"b": 1, "a/g": 2, "x": 3})
	r.write("f.img", "content")
	wantErrno(t, "exchange with a file", r.exchange("f.img", "x"), 0)
	r.wantPlaces(map[string]byte{"b": 1, "a/g": 2, "f.img": 3})
}

// TestRenameOverPlace: an empty directory that is replaced is a place no more.
func TestRenameOverPlace(t *testing.T) {
	r := newPlacesRig(t, []layout.Place{at(1, "a", "gold"), at(2, "b", "clear"), at(3, "c", "clear")})
	r.mkdir("plain")
	r.write("c/x.img", "content")
	wantErrno(t, "over a place that is not empty", r.rename("plain", "c"), unix.ENOTEMPTY)
	r.wantPlaces(map[string]byte{"a": 1, "b": 2, "c": 3})
	if got := r.made("c/y.img"); got != "clear" {
		t.Errorf("after a failed rename over it: %s", got)
	}
	wantErrno(t, "a directory over a place", r.rename("plain", "b"), 0)
	r.wantPlaces(map[string]byte{"a": 1, "c": 3})
	if got := r.made("b/x.img"); got != "kek-1" {
		t.Errorf("in what replaced it: %s", got)
	}
	wantErrno(t, "a place over a place", r.rename("c", "a"), 0)
	r.wantPlaces(map[string]byte{"a": 3})
	if got := r.made("a/z.img"); got != "clear" {
		t.Errorf("in the place: %s", got)
	}
}

// TestPlaceRemoved: rmdir of a place takes its tag and the place, or neither.
func TestPlaceRemoved(t *testing.T) {
	r := newPlacesRig(t, []layout.Place{at(1, "c", "clear"), at(2, "d", "clear")})
	r.write("c/x.img", "content")
	wantErrno(t, "not empty", unix.Rmdir(r.path("c")), unix.ENOTEMPTY)
	r.wantPlaces(map[string]byte{"c": 1, "d": 2})
	if got := r.made("c/x2.img"); got != "clear" {
		t.Errorf("after a failed rmdir: %s", got)
	}
	for _, name := range []string{"c/x.img", "c/x2.img"} {
		if err := os.Remove(r.path(name)); err != nil {
			t.Fatal(err)
		}
	}
	wantErrno(t, "with the tag alone", unix.Rmdir(r.path("c")), 0)
	r.wantPlaces(map[string]byte{"d": 2})
	if _, err := os.Stat(r.under("c")); !os.IsNotExist(err) {
		t.Errorf("c is there: %v", err)
	}
	r.plant("d/"+layout.PlaceTag, "something else")
	wantErrno(t, "with what is no tag", unix.Rmdir(r.path("d")), unix.ENOTEMPTY)
	r.wantPlaces(map[string]byte{"d": 2})
	r.tag("d", at(2, "", "").ID)
	r.sealBy(func(context.Context, func(*layout.Settings) error) error { return errors.New("refused") })
	wantErrno(t, "where the settings stay", unix.Rmdir(r.path("d")), 0)
	r.wantPlaces(map[string]byte{"d": 2})
}

// TestTagPutBack: the tag comes back, with owner and mode, where the directory could not be removed.
func TestTagPutBack(t *testing.T) {
	r := newPlacesRig(t, []layout.Place{at(1, "c", "clear")})
	tag := r.under("c/" + layout.PlaceTag)
	if err := errors.Join(os.Chmod(tag, 0o640), os.Chown(tag, 7, 8)); err != nil {
		t.Fatal(err)
	}
	r.fs.names.RLock()
	calls := 0
	err := r.fs.emptied(r.fs.table.Root().In("c"), func() error {
		if calls++; calls == 2 { // somebody makes a file in between
			_, err := os.Stat(tag)
			if !os.IsNotExist(err) {
				t.Errorf("the tag before the second try: %v", err)
			}
		}
		return unix.ENOTEMPTY
	})
	r.fs.names.RUnlock()
	wantErrno(t, "remove", err, unix.ENOTEMPTY)
	var st unix.Stat_t
	if err := unix.Stat(tag, &st); err != nil || st.Uid != 7 || st.Gid != 8 || st.Mode&0o777 != 0o640 {
		t.Errorf("the tag: %+v, %v", st, err)
	}
	if got := r.made("c/x.img"); got != "clear" {
		t.Errorf("a new file: %s", got)
	}
}

// TestPlaceRenameCutOff: whichever step of a rename is the last before a crash, the places are
// right, and the next mount has one path of each.
func TestPlaceRenameCutOff(t *testing.T) {
	errCrash := errors.New("crash")
	for _, policy := range []string{"gold", "clear"} {
		want := map[string]string{"gold": "kek-2", "clear": "clear"}[policy]
		for last := range 5 {
			r := newPlacesRig(t, []layout.Place{at(1, "a", policy)})
			seal, calls := r.config.Seal, 0
			r.sealBy(func(ctx context.Context, edit func(*layout.Settings) error) error {
				calls++
				if last == 2*calls-2 { // before the settings are sealed
					return errCrash
				}
				err := seal(ctx, edit)
				if err == nil && last == 2*calls-1 { // after
					return errCrash
				}
				if last < 2*calls-2 { // after the crash nothing happens
					return errCrash
				}
				return err
			})
			err := r.rename("a", "b")
			there := "a"
			if _, gone := os.Stat(r.under("a")); gone != nil {
				there = "b"
			}
			t.Logf("%s, step %d: %v, %v, in %s", policy, last, err, r.places(), there)
			r.sealBy(seal)
			if got := r.made(there + "/before.img"); got != want {
				t.Errorf("%s, step %d: before it is settled: %s, want %s", policy, last, got, want)
			}
			if err := r.fs.SettlePlaces(t.Context()); err != nil {
				t.Error(err)
			}
			r.wantPlaces(map[string]byte{there: 1})
			if got := r.made(there + "/x.img"); got != want {
				t.Errorf("%s, step %d: %s, want %s", policy, last, got, want)
			}
			wantErrno(t, "rename after that", r.rename(there, "c"), 0)
			r.wantPlaces(map[string]byte{"c": 1})
			r.unmount()
		}
	}
}

// TestSettlePlaces: of two paths the one with the tag counts, and two that cannot be told apart stay.
func TestSettlePlaces(t *testing.T) {
	r := newPlacesRig(t, []layout.Place{at(1, "a", "clear"), at(1, "b", "clear"), at(2, "g", "gold"), at(2, "h", "gold"), at(3, "n", "gold"), at(3, "m", "gold")})
	for _, name := range []string{"a", "g", "h"} {
		if err := os.Remove(r.under(name + "/" + layout.PlaceTag)); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"n", "m"} {
		if err := os.RemoveAll(r.under(name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.fs.SettlePlaces(t.Context()); err != nil {
		t.Error(err)
	}
	r.wantPlaces(map[string]byte{"b": 1, "g": 2, "h": 2, "n": 3, "m": 3})
	wantErrno(t, "rename of one of two", r.rename("g", "i"), unix.EBUSY)
	r.wantPlaces(map[string]byte{"b": 1, "g": 2, "h": 2, "n": 3, "m": 3})
}

// TestPlaceRenameUnsealed: without a way to seal, or the key, a place stays where it is.
func TestPlaceRenameUnsealed(t *testing.T) {
	r := newPlacesRig(t, []layout.Place{at(1, "a", "gold"), at(2, "c", "clear")})
	seal := r.config.Seal
	r.sealBy(nil)
	wantErrno(t, "no way to seal", r.rename("a", "b"), unix.EPERM)
	r.kms.down.Store(true)
	r.sealBy(seal)
	wantErrno(t, "not proven", r.rename("a", "b"), unix.ENOKEY)
	wantErrno(t, "rmdir", unix.Rmdir(r.path("c")), 0)
	r.wantPlaces(map[string]byte{"a": 1, "c": 2})
	r.kms.down.Store(false)
}

// TestPlaceRenamesAtOnce: renames of a directory and of a place below, beside each other and beside
// new files, leave the places at their directories.
func TestPlaceRenamesAtOnce(t *testing.T) {
	r := newPlacesRig(t, []layout.Place{at(1, "v/g", "gold"), at(2, "v/g/c", "clear")})
	var all sync.WaitGroup
	for _, names := range [][2]string{{"v", "w"}, {"v/g", "v/h"}, {"w/g", "w/h"}} {
		all.Go(func() {
			for range 40 {
				_ = r.rename(names[0], names[1])
				_ = r.rename(names[1], names[0])
				_ = os.WriteFile(r.path(names[0]+"/x.img"), nil, 0o600)
			}
		})
	}
	all.Wait()
	want := map[string]byte{}
	for _, dir := range []string{"v/g", "v/h", "w/g", "w/h"} {
		if _, err := os.Stat(r.under(dir)); err == nil {
			want[dir], want[dir+"/c"] = 1, 2
		}
	}
	if len(want) != 2 {
		t.Fatalf("directories of the places: %v", want)
	}
	r.wantPlaces(want)
}

// TestPlaceRenameHalfSealed: a rename whose last change of the settings fails is done, and the next one settles it.
func TestPlaceRenameHalfSealed(t *testing.T) {
	r := newPlacesRig(t, []layout.Place{at(1, "a", "gold")})
	seal, calls := r.config.Seal, 0
	r.sealBy(func(ctx context.Context, edit func(*layout.Settings) error) error {
		if calls++; calls == 2 {
			return errors.New("refused")
		}
		return seal(ctx, edit)
	})
	wantErrno(t, "rename", r.rename("a", "b"), 0)
	r.wantPlaces(map[string]byte{"a": 1, "b": 1})
	if got := r.made("b/x.img"); got != "kek-2" {
		t.Errorf("a new file: %s", got)
	}
	wantErrno(t, "the next rename", r.rename("b", "c"), 0)
	r.wantPlaces(map[string]byte{"c": 1})
}
