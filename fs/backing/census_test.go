package backing

import (
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"vmcryptfs/layout"
)

// TestCensus counts one file of each sort.
func TestCensus(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	plantKinds(t, dir)
	must(t, os.Remove(filepath.Join(dir, "file")))
	must(t, os.Mkdir(filepath.Join(dir, layout.ReservedPrefix), 0o755))
	plant(t, dir, layout.ReservedPrefix+"/own", "x")
	plant(t, dir, layout.ReservedPrefix+"-ours", "x")
	plant(t, dir, layout.ReservedPrefix+"-theirs", "x")
	want := map[string]string{
		"dir/a.img": "encrypted", "b.img": "unsynced", "c.img": "damaged", "d.img": "damaged", "e.img": "unencrypted",
		"f.img": "empty", "g.log": "clear", "h.log": "clear", "i.vmdk": "clear", "j.img": "encrypted",
	}
	at := func(name string) string { return filepath.Join(dir, name) }
	plantEncrypted(t, at("dir/a.img"), header(1), header(1), 0)
	plantEncrypted(t, at("b.img"), header(1), torn(), 0)
	plantEncrypted(t, at("c.img"), torn(), torn(), 0)
	plantEncrypted(t, at("d.img"), nil, header(1), 0) // hidden
	plant(t, dir, "e.img", "x")
	plant(t, dir, "f.img", "")
	plant(t, dir, "g.log", "x")
	plantEncrypted(t, at("h.log"), nil, header(1), 0) // in clear by right, whatever is in it
	plant(t, dir, "i.vmdk", descriptor)
	plantEncrypted(t, at("j.img"), newer(), newer(), 0)
	got := map[string]string{}
	verdict := func(_ int, at string) layout.Verdict { return layout.Classify(filepath.Base(at)) }
	foreign := func(name string) bool { return strings.HasSuffix(name, "-theirs") }
	c, err := NewCounter(openDir(t, dir), verdict, foreign).Take(t.Context(), func(path, form, rule string) {
		if got[path] = form; rule != layout.Classify(path).About {
			t.Errorf("%s: rule %q", path, rule)
		}
	})
	must(t, err)
	if !maps.Equal(got, want) {
		t.Errorf("files by form: %v, want %v", got, want)
	}
	counts := Census{Encrypted: 3, Clear: 3, Empty: 1, Unencrypted: 1, Damaged: 2, Unsynced: 1, Directories: 1, Other: 2, Leftovers: 1, ByClass: c.ByClass}
	if sum := sumOf(c.ByClass); !reflect.DeepEqual(c, counts) || sum != 10 {
		t.Errorf("counted %+v, by class %d, want %+v", c, sum, counts)
	}
}

func sumOf(counts map[string]int64) (sum int64) {
	for _, n := range counts {
		sum += n
	}
	return sum
}

// TestCensusUnreadable: what may not be read counts as other, and does not end the walk.
func TestCensusUnreadable(t *testing.T) {
	t.Parallel()
	dir, counter := newDirectory(t)
	plant(t, dir, "a.log", "x")
	plant(t, dir, "b.log", "x")
	must(t, os.Chmod(filepath.Join(dir, "a.log"), 0))
	must(t, os.Mkdir(filepath.Join(dir, "d"), 0))
	var c Census
	var err error
	asNobody(t, func() { c, err = counter.Take(t.Context(), nil) })
	if err != nil || c.Clear != 1 || c.Other != 1 || c.Directories != 1 {
		t.Errorf("counted %+v, %v", c, err)
	}
}

// TestCensusGone: a file that is gone, or something else, when the census opens it is not counted
// as a file.
func TestCensusGone(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	plantKinds(t, dir)
	fd := openDir(t, dir)
	for name, want := range map[string]error{"none": unix.ENOENT, "pipe": nil, "dir": nil, "link": nil} {
		s, version, err := seeFile(t.Context(), fd, name, layout.Verdict{})
		if s != seenOther || version != nil || !errors.Is(err, want) {
			t.Errorf("%s: %v, %v, %v, want other, %v", name, s, version, err, want)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, counter := newDirectory(t)
	if _, err := counter.Take(ctx, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("a census whose context has ended: %v", err)
	}
}
