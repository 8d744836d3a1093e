package fs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"vmcryptfs/fs/backing"
	"vmcryptfs/keys"
	"vmcryptfs/layout"
)

// newPlacesRig is a datastore with places, whose mount seals changes of its settings. The KMS has the
// keys kek-1 to kek-4. Directories of places are made, with their tags.
func newPlacesRig(t *testing.T, places []layout.Place) *rig {
	t.Helper()
	var r *rig
	r = newRig(t, func(s *layout.Settings, c *Config) {
		s.Policies = []layout.Policy{
			{Name: "gold", Encrypt: true, KEK: "kek-2"},
			{Name: "vm", Encrypt: true, KEK: layout.KEKOfPlace},
			{Name: "lost", Encrypt: true, KEK: "kek-nobody-has"},
			{Name: "away", Encrypt: true, Provider: "elsewhere", KEK: "kek-2"},
		}
		s.Places = places
		c.Seal = func(ctx context.Context, edit func(*layout.Settings) error) error {
			return r.store.Edit(ctx, r.cache, edit)
		}
	})
	for i := 2; i <= 4; i++ {
		r.kms.mu.Lock()
		key := make([]byte, keys.KEKSize)
		key[0] = byte(i)
		r.kms.material[fmt.Sprint("kek-", i)] = key
		r.kms.mu.Unlock()
	}
	for _, p := range places {
		r.mkdir(p.Path)
		r.tag(p.Path, p.ID)
	}
	return r
}

func (r *rig) mkdir(dir string) {
	r.t.Helper()
	if err := os.MkdirAll(r.under(dir), 0o755); err != nil {
		r.t.Fatal(err)
	}
}

// tag puts a tag into a directory.
func (r *rig) tag(dir string, id layout.FileID) { r.plant(dir+"/"+layout.PlaceTag, layout.TagText(id)) }

// at is a place with an id made of n.
func at(n byte, path, policy string) layout.Place {
	id := layout.FileID{6: 0x40, 8: 0x80, 15: n}
	return layout.Place{Path: path, ID: id, Policy: policy}
}

// places are the paths of the settings with the last byte of their ids.
func (r *rig) places() map[string]byte {
	got := map[string]byte{}
	for _, p := range r.store.Settings().Places {
		got[p.Path] = p.ID[15]
	}
	return got
}

func (r *rig) wantPlaces(want map[string]byte) {
	r.t.Helper()
	if got := r.places(); fmt.Sprint(got) != fmt.Sprint(want) {
		r.t.Errorf("places %v, want %v", got, want)
	}
}

// kekOf is the KEK of a file in BACKING.
func (r *rig) kekOf(name string) string {
	r.t.Helper()
	b, _, err := backing.Open(unix.AT_FDCWD, r.under(name))
	if err != nil {
		r.t.Fatal(err)
	}
	defer b.Close()
	slots, err := backing.ReadHeader(r.t.Context(), b)
	if err != nil {
		r.t.Fatalf("%s: %v", name, err)
	}
	return slots.Header.Lockers[0].KeyID
}

func (r *rig) wantKEK(name, want string) {
	r.t.Helper()
	if got := r.kekOf(name); got != want {
		r.t.Errorf("%s is under %s, want %s", name, got, want)
	}
}

// edit changes the settings, as the daemon does.
func (r *rig) edit(change func(*layout.Settings)) {
	r.t.Helper()
	err := r.store.Edit(r.t.Context(), r.cache, func(s *layout.Settings) error { change(s); return nil })
	if err != nil {
		r.t.Fatal(err)
	}
	r.fs.TakeUpSettings()
}

// made writes a new file, and says its form and KEK: "clear", or the KEK.
func (r *rig) made(name string) string {
	r.t.Helper()
	r.write(name, "content")
	if form := r.form(name); form != "encrypted" {
		return form
	}
	return r.kekOf(name)
}

// TestPlaces: class and KEK of new files follow from the nearest place.
func TestPlaces(t *testing.T) {
	vm, globbed := at(2, "vms/b", "vm"), at(5, "globs", "gold")
	vm.KEK = "kek-3"
	globbed.Encrypt, globbed.Clear = []string{"*.log"}, []string{"*_2-flat.vmdk"}
	r := newPlacesRig(t, []layout.Place{at(1, "vms", "gold"), vm, at(3, "vms/c", "clear"), at(4, "c", "clear"), globbed, at(6, "vms/b/e", "encrypt")})
	for _, dir := range []string{"vms/a", "vms/b/deep/er", "vms/c/below", "c/below", "vmsx", "globs/below"} {
		r.mkdir(dir)
	}
	for name, want := range map[string]string{
		"x.img":                     "kek-1",
		"vmsx/x.img":                "kek-1",
		"x.log":                     "clear",
		"vms/x.img":                 "kek-2",
		"vms/x.log":                 "clear",
		"vms/a/x.img":               "kek-2",
		"vms/b/x.img":               "kek-3",
		"vms/b/deep/er/x":           "kek-3",
		"vms/b/e/x.img":             "kek-1", // "encrypt" is under the datastore's
		"vms/c/x.img":               "clear",
		"vms/c/x.nvram":             "clear",
		"vms/c/x.vmdk":              "clear",
		"vms/c/core.1":              "kek-2",
		"vms/c/below/x":             "kek-2",
		"c/x-flat.vmdk":             "clear",
		"c/unattend.xml":            "kek-1",
		"c/below/x":                 "kek-1",
		"globs/a_2-flat.vmdk":       "clear",
		"globs/a_1-flat.vmdk":       "kek-2",
		"globs/a.log":               "kek-2",
		"globs/below/a.log":         "clear",
		"globs/below/a_2-flat.vmdk": "kek-2",
	} {
		if got := r.made(name); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
	if c, err := r.fs.Census().Take(t.Context(), nil); err != nil || c.Unencrypted > 0 {
		t.Errorf("census: %+v, %v", c, err)
	}
}

// TestPlaceTag: a place that makes names clear holds with its own tag alone, as it is now.
func TestPlaceTag(t *testing.T) {
	place := at(1, "c", "clear")
	for what, change := range map[string]struct {
		do   func(r *rig)
		want string
	}{
		"right":   {func(*rig) {}, "clear"},
		"missing": {func(r *rig) { _ = os.Remove(r.under("c/" + layout.PlaceTag)) }, "kek-1"},
		"another": {func(r *rig) { r.tag("c", at(2, "", "").ID) }, "kek-1"},
		"longer":  {func(r *rig) { r.plant("c/"+layout.PlaceTag, layout.TagText(place.ID)+"\n") }, "kek-1"},
		"shorter": {func(r *rig) { r.plant("c/"+layout.PlaceTag, place.ID.String()) }, "kek-1"},
		"empty":   {func(r *rig) { r.plant("c/"+layout.PlaceTag, "") }, "kek-1"},
		"directory": {func(r *rig) {
			_ = os.Remove(r.under("c/" + layout.PlaceTag))
			r.mkdir("c/" + layout.PlaceTag)
		}, "kek-1"},
		"symlink": {func(r *rig) {
			r.plant("tag", layout.TagText(place.ID))
			_ = os.Remove(r.under("c/" + layout.PlaceTag))
			_ = os.Symlink("../tag", r.under("c/"+layout.PlaceTag))
		}, "kek-1"},
		"FIFO": {func(r *rig) {
			_ = os.Remove(r.under("c/" + layout.PlaceTag))
			_ = unix.Mkfifo(r.under("c/"+layout.PlaceTag), 0o644)
		}, "kek-1"},
		"directory replaced": {func(r *rig) {
			_ = os.Rename(r.under("c"), r.under("gone"))
			r.mkdir("c")
		}, "kek-1"},
		"replaced, with a copy of the tag": {func(r *rig) {
			_ = os.Rename(r.under("c"), r.under("gone"))
			r.mkdir("c")
			r.tag("c", place.ID)
		}, "clear"},
	} {
		t.Run(what, func(t *testing.T) {
			r := newPlacesRig(t, []layout.Place{place})
			if got := r.made("c/before.img"); got != "clear" {
				t.Fatalf("before: %s", got)
			}
			change.do(r)
			r.until("c is looked up anew", func() bool {
				_ = os.WriteFile(r.path("c/y.log"), nil, 0o600)
				_, err := os.Stat(r.under("c/y.log"))
				return err == nil
			})
			if got := r.made("c/x.img"); got != change.want {
				t.Errorf("%s, want %s", got, change.want)
			}
			if list, err := os.ReadDir(r.path("c")); err != nil || slices.ContainsFunc(list, func(e os.DirEntry) bool { return e.Name() == layout.PlaceTag }) {
				t.Errorf("listed: %v, %v", list, err)
			}
			if _, err := os.Lstat(r.path("c/" + layout.PlaceTag)); !os.IsNotExist(err) {
				t.Errorf("the tag is seen through the mount: %v", err)
			}
		})
	}
}

// TestTagTakenWhileOpen: cleartext is refused from the moment at which the tag is gone, and open
// files go on.
func TestTagTakenWhileOpen(t *testing.T) {
	r := newPlacesRig(t, []layout.Place{at(1, "c", "clear")})
	r.write("c/x.img", "content")
	open := r.open("c/x.img", os.O_RDWR)
	if err := os.Remove(r.under("c/" + layout.PlaceTag)); err != nil {
		t.Fatal(err)
	}
	_, err := os.Open(r.path("c/x.img"))
	wantErrno(t, "open without the tag", err, unix.EACCES)
	if _, err := open.WriteString("more"); err != nil {
		t.Errorf("the open file: %v", err)
	}
	r.tag("c", at(1, "", "").ID)
	r.wantRead("c/x.img", "moreent")
}

// TestPlaceWithoutKey: a policy whose KEK cannot be had makes no file under another one.
func TestPlaceWithoutKey(t *testing.T) {
	r := newPlacesRig(t, []layout.Place{at(1, "l", "lost"), at(2, "a", "away"), at(3, "l/c", "clear")})
	for _, name := range []string{"l/x.img", "a/x.img", "l/c/core.1"} {
		err := os.WriteFile(r.path(name), nil, 0o600)
		wantErrno(t, name, err, unix.ENOKEY)
		if _, err := os.Stat(r.under(name)); !os.IsNotExist(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	fd, err := unix.Open(r.path("l"), unix.O_TMPFILE|unix.O_RDWR, 0o600)
	wantErrno(t, "O_TMPFILE", err, unix.ENOKEY)
	if err == nil {
		unix.Close(fd)
	}
	for _, name := range []string{"l/x.log", "l/c/x.img", "x.img"} {
		r.write(name, "content")
	}
}

// TestPlacesTakenUp: files opened or made after a change of places go by it.
func TestPlacesTakenUp(t *testing.T) {
	r := newPlacesRig(t, []layout.Place{at(1, "c", "clear")})
	r.write("c/x.img", "content")
	open := r.open("c/x.img", os.O_RDONLY)
	r.edit(func(s *layout.Settings) { s.Places[0].Policy = "gold" })
	_, err := os.Open(r.path("c/x.img"))
	wantErrno(t, "open of cleartext that is encrypted by now", err, unix.EACCES)
	if got := r.made("c/y.img"); got != "kek-2" {
		t.Errorf("a new file: %s", got)
	}
	r.edit(func(s *layout.Settings) { s.Policies[0].KEK = "kek-3" })
	if got := r.made("c/z.img"); got != "kek-3" {
		t.Errorf("a new file: %s", got)
	}
	b := make([]byte, 7)
	if _, err := open.ReadAt(b, 0); err != nil || string(b) != "content" {
		t.Errorf("the open file: %q, %v", b, err)
	}
	r.edit(func(s *layout.Settings) { s.Places = nil })
	if got := r.made("c/a.img"); got != "kek-1" {
		t.Errorf("a new file: %s", got)
	}
	r.wantRead("c/z.img", "content")
}

// TestPathless: in a directory that other hands have moved, and that nobody has looked up since, no
// name is clear by a place, each place's globs encrypt, and no KEK is taken for the right one.
func TestPathless(t *testing.T) {
	globbed := at(2, "g", "gold")
	globbed.Encrypt = []string{"*.log"}
	r := newPlacesRig(t, []layout.Place{at(1, "c", "clear"), globbed})
	n, err := lookedUp(r.fs, r.fs.table.Root().In("c"))
	if err != nil {
		t.Fatal(err)
	}
	defer r.fs.table.Forget(n.ID, 1)
	if v := r.fs.verdict(n.In("x.img")); v.Class != layout.Clear {
		t.Errorf("before: %v", v)
	}
	r.fs.table.FoundGone(r.fs.table.Root().In("c"))
	if v := r.fs.verdict(n.In("x.img")); v.Class != layout.Encrypt {
		t.Errorf("a disk: %v", v)
	}
	if v := r.fs.verdict(n.In("x.log")); v.Class != layout.Encrypt || v.Policy != "gold" {
		t.Errorf("a log: %v", v)
	}
	if v := r.fs.verdict(n.In("x.vmx")); v.Class != layout.Clear {
		t.Errorf("a configuration: %v", v)
	}
	_, err = r.fs.kekFor(n.In("x.img"))
	if !errors.Is(err, keys.ErrNoKey) {
		t.Errorf("its KEK: %v", err)
	}
	again, err := lookedUp(r.fs, r.fs.table.Root().In("c"))
	if err != nil {
		t.Fatal(err)
	}
	r.fs.table.Forget(again.ID, 1)
	if v := r.fs.verdict(n.In("x.img")); again != n || v.Class != layout.Clear {
		t.Errorf("after: %v", v)
	}
}

// TestMovedByOthers: of several names that the table knows of a directory, the one in BACKING counts.
func TestMovedByOthers(t *testing.T) {
	r := newPlacesRig(t, []layout.Place{at(1, "a", "gold")})
	r.mkdir("b")
	r.write("a/x.img", "content")
	for _, to := range []string{"b/a", "b/c"} {
		from, _ := filepath.Glob(r.under("*a"))
		if to == "b/c" {
			from = []string{r.under("b/a")}
		}
		if err := os.Rename(from[0], r.under(to)); err != nil {
			t.Fatal(err)
		}
		if got := r.made(to + "/new.img"); got != "kek-1" {
			t.Errorf("%s: a new file is under %s", to, got)
		}
	}
	if err := os.Rename(r.under("b/c"), r.under("a")); err != nil {
		t.Fatal(err)
	}
	if got := r.made("a/back.img"); got != "kek-2" {
		t.Errorf("moved back: %s", got)
	}
}
