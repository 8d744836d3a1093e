package backing

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"vmcryptfs/integration/mounttest"
	"vmcryptfs/layout"
)

// TestWalkIsBounded: whoever may make directories must not make a walk, which each mount
// begins with, take a descriptor and a buffer for each of a hundred thousand levels.
func TestWalkIsBounded(t *testing.T) {
	top, err := unix.Open(t.TempDir(), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(top)
	mounttest.Nest(t, top, unix.PathMax/50)
	if err := unix.Mkdirat(top, "e", 0o755); err != nil {
		t.Fatal(err)
	}
	longest, beside := 0, false
	w := Walk{Root: top, Visit: func(_ int, at string, _ *Entry) error {
		longest = max(longest, len(at))
		beside = beside || at == "e"
		return nil
	}}
	err = w.All(context.Background())
	if err != nil || !beside || longest < unix.PathMax/2 || longest > unix.PathMax+unix.NAME_MAX {
		t.Errorf("longest path %d bytes, what lies beside seen: %v, %v", longest, beside, err)
	}
}

// plantTree makes a tree with each kind of thing that a walk meets, and gives its descriptor.
func plantTree(t *testing.T) (dir string, root int) {
	t.Helper()
	dir = t.TempDir()
	own := layout.ReservedPrefix
	for _, d := range []string{"a/b", "a/" + own, "a/" + own + "-d", own} {
		must(t, os.MkdirAll(filepath.Join(dir, d), 0o755))
		plant(t, dir, d+"/f", "")
	}
	must(t, os.Symlink("a", filepath.Join(dir, "link")))
	must(t, unix.Mkfifo(filepath.Join(dir, "pipe"), 0o644))
	return dir, openDir(t, dir)
}

// visited is a walk that notes the paths of its visits.
func visited(root int) (*Walk, *[]string) {
	var got []string
	return &Walk{Root: root, Visit: func(_ int, at string, _ *Entry) error {
		got = append(got, at)
		return nil
	}}, &got
}

// TestWalkFrom: a walk begins at a file or a directory, and follows no link. The program's own
// directory at the top is left out; other reserved names are visited, and not entered.
func TestWalkFrom(t *testing.T) {
	t.Parallel()
	_, root := plantTree(t)
	below := []string{"a/.vmcryptfs", "a/.vmcryptfs-d", "a/b", "a/b/f"}
	for _, c := range []struct {
		from string
		want []string
		err  string
	}{
		{".", append([]string{"a", "link", "pipe"}, below...), ""},
		{"a", below, ""},
		{"a/b", []string{"a/b/f"}, ""},
		{"a/b/f", []string{"a/b/f"}, ""},
		{"none", nil, "none: " + unix.ENOENT.Error()},
		{"a/none/f", nil, "a/none/f: " + unix.ENOENT.Error()},
		{"link", nil, "link: neither a regular file nor a directory"},
		{"link/b/f", nil, "link/b/f: " + unix.ELOOP.Error()},
		{"pipe", nil, "pipe: neither a regular file nor a directory"},
		{"../x", nil, "../x: " + unix.EXDEV.Error()},
	} {
		w, got := visited(root)
		err := w.From(t.Context(), c.from)
		slices.Sort(*got)
		slices.Sort(c.want)
		if !slices.Equal(*got, c.want) {
			t.Errorf("from %s: %v, want %v", c.from, *got, c.want)
		}
		if text := fmt.Sprint(err); text != c.err && (err != nil || c.err != "") {
			t.Errorf("from %s: %v, want %s", c.from, err, c.err)
		}
	}
}

// TestWalkVisit: the descriptor and the name that Visit gets lead to the file of the path, and the
// kind is that of the file.
func TestWalkVisit(t *testing.T) {
	t.Parallel()
	dir, root := plantTree(t)
	w := Walk{Root: root, Visit: func(parent int, at string, e *Entry) error {
		var byName, byPath unix.Stat_t
		must(t, unix.Fstatat(parent, string(e.Name), &byName, unix.AT_SYMLINK_NOFOLLOW))
		must(t, unix.Lstat(filepath.Join(dir, at), &byPath))
		if KeyOf(&byName) != KeyOf(&byPath) || e.Key() != KeyOf(&byPath) || e.Kind != byPath.Mode&unix.S_IFMT {
			t.Errorf("%s: %+v", at, e)
		}
		return nil
	}}
	must(t, w.All(t.Context()))
	must(t, w.From(t.Context(), "a/b/f"))
}

// TestWalkChanged: what goes or becomes a link between its visit and its walk is passed over.
func TestWalkChanged(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(path string) error{
		"removed": os.RemoveAll,
		"a file":  func(path string) error { return errors.Join(os.RemoveAll(path), os.WriteFile(path, nil, 0o644)) },
		"a link":  func(path string) error { return errors.Join(os.RemoveAll(path), os.Symlink("../kept", path)) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			must(t, os.MkdirAll(filepath.Join(dir, "top/gone"), 0o755))
			must(t, os.Mkdir(filepath.Join(dir, "kept"), 0o755))
			plant(t, dir, "top/gone/f", "")
			plant(t, dir, "kept/g", "")
			w, got := visited(openDir(t, dir))
			note := w.Visit
			w.Visit = func(parent int, at string, e *Entry) error {
				if at == "top/gone" {
					must(t, change(filepath.Join(dir, at)))
				}
				return note(parent, at, e)
			}
			err := w.All(t.Context())
			slices.Sort(*got)
			if want := []string{"kept", "kept/g", "top", "top/gone"}; err != nil || !slices.Equal(*got, want) {
				t.Errorf("%v, %v, want %v", *got, err, want)
			}
		})
	}
}

// TestWalkEnds by an error of Visit, and by the end of its context.
func TestWalkEnds(t *testing.T) {
	t.Parallel()
	_, root := plantTree(t)
	enough := errors.New("enough")
	ctx, cancel := context.WithCancel(t.Context())
	for _, c := range []struct {
		visit func() error
		want  error
	}{
		{func() error { return enough }, enough},
		{func() error { cancel(); return nil }, context.Canceled},
	} {
		n := 0
		w := Walk{Root: root, Visit: func(int, string, *Entry) error { n++; return c.visit() }}
		if err := w.From(ctx, "a/b"); !errors.Is(err, c.want) || n != 1 {
			t.Errorf("%d visits, %v, want 1, %v", n, err, c.want)
		}
	}
	w, got := visited(root)
	if err := w.All(ctx); !errors.Is(err, context.Canceled) || len(*got) > 0 {
		t.Errorf("after the end of its context: %v, %v", *got, err)
	}
}

// TestWalkUnreadable: a directory that may not be read is passed over, or told to Broken; the walk
// goes on with the rest. Only Broken's own error, or a top that may not be read, ends it.
func TestWalkUnreadable(t *testing.T) {
	t.Parallel()
	dir, root := plantTree(t)
	closed := filepath.Join(dir, "a/b")
	must(t, os.Chmod(closed, 0))
	must(t, os.Chmod(dir, 0o755))
	t.Cleanup(func() { os.Chmod(closed, 0o755) })
	enough := errors.New("enough")
	for _, c := range []struct {
		name, from string
		broken     error // of Broken
		tell       bool
		want       error
	}{
		{"passed over", ".", nil, false, nil},
		{"told", ".", nil, true, nil},
		{"ends the walk", ".", enough, true, enough},
	} {
		w, got := visited(root)
		var told []string
		if c.tell {
			w.Broken = func(at string, err error) error {
				if told = append(told, at); !errors.Is(err, unix.EACCES) {
					t.Errorf("%s: told of %v", c.name, err)
				}
				return c.broken
			}
		}
		var err error
		asNobody(t, func() { err = w.From(t.Context(), c.from) })
		if !errors.Is(err, c.want) || slices.Equal(told, []string{"a/b"}) != c.tell || slices.Contains(*got, "a/b/f") {
			t.Errorf("%s: visited %v, told %v, %v, want %v", c.name, *got, told, err, c.want)
		}
		if c.want == nil && len(*got) != 6 {
			t.Errorf("%s: visited %v, want all that may be read", c.name, *got)
		}
	}
	w, got := visited(openDir(t, closed))
	var err error
	asNobody(t, func() { err = w.All(t.Context()) })
	if !errors.Is(err, unix.EACCES) || len(*got) > 0 {
		t.Errorf("from a top that may not be read: %v, %v", *got, err)
	}
}
