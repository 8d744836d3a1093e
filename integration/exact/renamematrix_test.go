package exact

import (
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"vmcryptfs/integration/mounttest"
)

// renameKinds are the kinds of names to rename or replace.
var renameKinds = []struct {
	name string
	make func(w *witness, path string) error
}{
	{"nothing", func(*witness, string) error { return nil }},
	{"file", func(_ *witness, p string) error { return os.WriteFile(p, []byte(p[len(p)-5:]), 0o644) }},
	{"the same file", func(w *witness, p string) error { return unix.Link(w.file("shared"), p) }},
	{"empty directory", func(_ *witness, p string) error { return os.Mkdir(p, 0o755) }},
	{"full directory", func(_ *witness, p string) error { return os.MkdirAll(p+"/sub", 0o755) }},
	{"symbolic link", func(_ *witness, p string) error { return unix.Symlink("anywhere", p) }},
	{"fifo", func(_ *witness, p string) error { return unix.Mkfifo(p, 0o644) }},
}

var renameFlags = []uint{0, unix.RENAME_NOREPLACE, unix.RENAME_EXCHANGE, unix.RENAME_EXCHANGE | unix.RENAME_NOREPLACE, 1 << 10}

// TestRenames renames every kind of thing to every other, in a directory and between two, with
// every flag, and compares errno and the tree afterwards.
func TestRenames(t *testing.T) {
	t.Parallel()
	o := newOracle(t)
	o.compare(t, []check{
		{"renames", (*witness).renameAll},
		{"loops", (*witness).renameLoops},
		{"open", (*witness).renameOpen},
		{"sticky", (*witness).renameSticky},
	})
}

func rename2(from, to string, flags uint) error {
	return mounttest.Uninterrupted(func() error { return unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, flags) })
}

func (w *witness) renameAll() {
	w.must(os.WriteFile(w.file("shared"), []byte("shared"), 0o644))
	for _, from := range renameKinds {
		for _, to := range renameKinds {
			for _, flags := range renameFlags {
				w.renameOne(fmt.Sprintf("%s to %s, flags %#x", from.name, to.name, flags), flags, from.make, to.make)
			}
		}
	}
}

func (w *witness) renameOne(what string, flags uint, from, to func(*witness, string) error) {
	a, b := w.path("a"), w.path("b")
	w.must(os.Mkdir(a, 0o755))
	w.must(os.Mkdir(b, 0o755))
	old, new := a+"/old"+w.ext, b+"/new"+w.ext
	w.must(from(w, old))
	w.must(to(w, new))
	w.tried(what, rename2(old, new, flags))
	for _, path := range []string{old, new, a, b} {
		w.look(path[len(w.dir):], path)
	}
	w.must(os.RemoveAll(a))
	w.must(os.RemoveAll(b))
}

// renameLoops renames directories into themselves and over their parents.
func (w *witness) renameLoops() {
	for _, flags := range renameFlags {
		for _, c := range [][2]string{
			{"d", "d/e/f"}, {"d", "d/e"}, {"d/e", "d"}, {"d/e/f", "d"}, {"d", "d"}, {"d/e", "d/e"}, {"d", "d/."}, {"d/.", "x"},
			{"d/e/..", "x"}, {"d/e", "d/e/.."}, {"d/e", "."}, {".", "x"}, {"d/e", "x/"}, {"d/none", "x"}, {"d/e/f", "x/y"},
		} {
			w.must(os.MkdirAll(w.path("d/e/f"), 0o755))
			w.tried(fmt.Sprintf("%s to %s, flags %#x", c[0], c[1], flags), rename2(w.dir+"/"+c[0], w.dir+"/"+c[1], flags))
			for _, name := range []string{"d", "d/e", "d/e/f", "x"} {
				w.look(name, w.path(name))
			}
			w.must(os.RemoveAll(w.path("d")))
			w.must(os.RemoveAll(w.path("x")))
		}
	}
}

// renameOpen renames and replaces open files: each descriptor stays with its file, whose links
// are counted.
func (w *witness) renameOpen() {
	for _, flags := range []uint{0, unix.RENAME_EXCHANGE} {
		old, new := w.file("old"), w.file("new")
		w.must(os.WriteFile(old, []byte("old file"), 0o644))
		w.must(os.WriteFile(new, []byte("new file"), 0o644))
		a, err := os.OpenFile(old, os.O_RDWR, 0)
		w.must(err)
		b, err := os.OpenFile(new, os.O_RDWR, 0)
		w.must(err)
		w.tried("rename", rename2(old, new, flags))
		for i, f := range []*os.File{a, b} {
			_, err := f.WriteAt([]byte(fmt.Sprintf("file %d, longer than before", i)), 0)
			w.tried("write", err)
			w.tried("truncate", f.Truncate(20))
			got := make([]byte, 30)
			n, _ := f.ReadAt(got, 0)
			var st unix.Stat_t
			w.must(unix.Fstat(int(f.Fd()), &st))
			w.saw("descriptor %d reads %q, %d bytes, %d links", i, got[:n], st.Size, st.Nlink)
		}
		for _, path := range []string{old, new} {
			text, err := os.ReadFile(path)
			w.saw("%s: %q %s", path[len(w.dir):], text, errnoName(err))
		}
		w.must(a.Close())
		w.must(b.Close())
		w.listing()
	}
}

// listing writes down every name of the directory, hidden ones too.
func (w *witness) listing() {
	entries, err := os.ReadDir(w.dir)
	w.must(err)
	for _, e := range entries {
		w.saw("listed: %s %v", e.Name(), e.Type())
	}
}

// renameSticky: in a sticky directory only the owner of the directory or of a file may remove the
// file's name.
func (w *witness) renameSticky() {
	for _, dirOwner := range users {
		for _, fileOwner := range users {
			for _, u := range users {
				for _, mode := range []uint32{0o1777, 0o777} {
					dir := w.path("dir")
					from, to := dir+"/from"+w.ext, dir+"/to"+w.ext
					w.must(os.Mkdir(dir, 0o777))
					w.create(from, "from", 0o666)
					w.create(to, "to", 0o666)
					w.must(unix.Chown(to, int(fileOwner.uid), -1))
					w.must(unix.Chown(from, int(u.uid), -1))
					w.must(unix.Chown(dir, int(dirOwner.uid), -1))
					w.must(unix.Chmod(dir, mode))
					w.as(u, func() {
						who := fmt.Sprintf("%s in %o of %s, file of %s", u.name, mode, dirOwner.name, fileOwner.name)
						w.tried("exchange, "+who, rename2(from, to, unix.RENAME_EXCHANGE))
						w.tried("rename, "+who, rename2(from, to, 0))
						w.tried("away, "+who, rename2(to, w.file("away"), 0))
						w.tried("unlink, "+who, unix.Unlink(to))
					})
					w.must(os.RemoveAll(dir))
					w.must(os.RemoveAll(w.file("away")))
				}
			}
		}
	}
}
