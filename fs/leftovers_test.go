package fs

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"vmcryptfs/layout"
)

// elsewhere is the name of a temporary of another host.
const elsewhere = layout.ReservedPrefix + "-0123456789abcdef-00112233445566ff-8899aabbccddeeff"

// TestRemoveWithLeftovers: a directory with no entry but temporaries out of use is removed, or
// replaced by another, as the empty one that a caller sees.
func TestRemoveWithLeftovers(t *testing.T) {
	r := newRig(t, nil)
	earlier := r.fs.temps.host + "00112233445566ff-8899aabbccddeeff"
	for what, remove := range map[string]func(dir string) error{
		"rmdir": os.Remove,
		"rename over": func(dir string) error {
			if err := os.Mkdir(dir+".other", 0o755); err != nil {
				t.Fatal(err)
			}
			return unix.Rename(dir+".other", dir)
		},
	} {
		if err := os.Mkdir(r.path(what), 0o755); err != nil {
			t.Fatal(err)
		}
		r.plant(what+"/"+elsewhere, "left")
		r.plant(what+"/"+earlier, "left")
		r.plant(what+"/shown", "")
		wantErrno(t, what+", not empty", remove(r.path(what)), unix.ENOTEMPTY)
		if _, err := os.Stat(r.under(what + "/" + elsewhere)); err != nil {
			t.Errorf("%s: the leftover of a directory that stays: %v", what, err)
		}
		if err := os.RemoveAll(r.path(what + ".other")); err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(r.path(what + "/shown")); err != nil {
			t.Fatal(err)
		}
		wantErrno(t, what, remove(r.path(what)), 0)
		if left, err := os.ReadDir(r.under(what)); len(left) > 0 || what == "rmdir" && !os.IsNotExist(err) {
			t.Errorf("%s left %v, %v", what, left, err)
		}
	}
}

// TestRemoveKeeps reserved files other than temporaries, and temporaries perhaps in use. The
// directory stays with such a file, and the log says why.
func TestRemoveKeeps(t *testing.T) {
	var log lines
	r := newRig(t, func(_ *layout.Settings, c *Config) { c.Log = slog.New(slog.NewTextHandler(&log, nil)) })
	for i, name := range []string{
		r.fs.temps.mount + "8899aabbccddeeff",            // of this mount
		layout.ReservedPrefix,                            // another datastore's settings
		layout.ReservedPrefix + "-move-0011223344556677", // a later version's
		elsewhere + "-x", elsewhere[:len(elsewhere)-1], elsewhere + "0",
	} {
		dir := string(rune('a' + i))
		if err := os.Mkdir(r.path(dir), 0o755); err != nil {
			t.Fatal(err)
		}
		r.plant(dir+"/"+name, "kept")
		r.plant(dir+"/"+elsewhere, "kept with it")
		for range 2 {
			wantErrno(t, name, os.Remove(r.path(dir)), unix.ENOTEMPTY)
		}
		for _, name := range []string{name, elsewhere} {
			if _, err := os.Stat(r.under(filepath.Join(dir, name))); err != nil {
				t.Error(err)
			}
		}
		if got := log.with("looks empty"); got != i+1 {
			t.Errorf("%s: %d lines in all, want %d", name, got, i+1)
		}
	}
	if err := os.MkdirAll(r.under("z/"+elsewhere), 0o755); err != nil { // no file: nobody makes such
		t.Fatal(err)
	}
	wantErrno(t, "a directory", os.Remove(r.path("z")), unix.ENOTEMPTY)
}

// TestRemoveKeepsWhatComes: a file put by others into a directory of BACKING, while the directory's
// leftovers are removed, stays, and so does the directory.
func TestRemoveKeepsWhatComes(t *testing.T) {
	r := newRig(t, nil)
	for _, dir := range []string{"d", "other"} {
		if err := os.Mkdir(r.path(dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	const leftovers, restored = 3000, 64 // too many to be listed at once; some are listed late
	for i := range leftovers {
		r.plant(fmt.Sprintf("d/%s%016x", elsewhere[:len(elsewhere)-16], i), "")
	}
	removed := make(chan error)
	go func() { removed <- unix.Rename(r.path("other"), r.path("d")) }()
	for { // until the first is gone
		if list, err := os.ReadDir(r.under("d")); err != nil || len(list) < leftovers {
			break
		}
	}
	var names []string
	for i := range restored {
		names = append(names, fmt.Sprintf("d/restored%d.img", i))
		if err := os.WriteFile(r.under(names[i]), []byte("the only copy"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := <-removed; err != nil { // or the removal ended before the files came
		wantErrno(t, "rename over what is not empty by now", err, unix.ENOTEMPTY)
	}
	for _, name := range names {
		if _, err := os.Stat(r.under(name)); err != nil {
			t.Error(err)
		}
	}
}

// TestLeftoversAreCounted: leftovers of other hosts, which no mount here removes.
func TestLeftoversAreCounted(t *testing.T) {
	r := newRig(t, nil)
	if err := os.Mkdir(r.path("d"), 0o755); err != nil {
		t.Fatal(err)
	}
	r.plant("d/"+elsewhere, "left")
	r.plant(elsewhere, "left")
	r.plant(r.fs.temps.mount+"8899aabbccddeeff", "in use")
	r.plant(layout.ReservedPrefix+"-other", "no temporary")
	c, err := r.fs.Census().Take(context.Background(), nil)
	if err != nil || c.Leftovers != 2 || c.Directories != 1 || c.Empty+c.Clear+c.Encrypted+c.Unencrypted+c.Other != 0 {
		t.Errorf("%+v, %v, want two leftovers and a directory", c, err)
	}
}
