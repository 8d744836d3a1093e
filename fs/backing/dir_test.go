package backing

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"vmcryptfs/layout"
)

// list opens dir and gives its entries but for "." and "..", with names of their own.
func list(t *testing.T, dir string) (*Dir, []Entry) {
	t.Helper()
	d, err := OpenDir(unix.AT_FDCWD, dir, 0)
	must(t, err)
	t.Cleanup(func() { d.Close() })
	return d, rest(t, d)
}

// rest reads what is left in d.
func rest(t *testing.T, d *Dir) (all []Entry) {
	t.Helper()
	for {
		e, err := d.Read()
		must(t, err)
		if e == nil {
			return all
		}
		one := *e
		one.Name = slices.Clone(e.Name)
		if name := string(one.Name); name != "." && name != ".." {
			all = append(all, one)
		}
	}
}

func names(entries []Entry) (all []string) {
	for _, e := range entries {
		all = append(all, string(e.Name))
	}
	return all
}

// TestDirReadsAll: each entry comes once, also over several reads of the directory, with its kind
// and its inode; names of the program's own are not left out.
func TestDirReadsAll(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	want := plantKinds(t, dir)
	for i := range 2000 { // more than one buffer
		want[fmt.Sprintf("a long name for a file, number %d", i)] = unix.S_IFREG
	}
	want[layout.ReservedPrefix+"-tmp"] = unix.S_IFREG
	for name, kind := range want {
		if kind == unix.S_IFREG {
			plant(t, dir, name, "")
		}
	}
	_, got := list(t, dir)
	if len(got) != len(want) {
		t.Errorf("%d entries, want %d", len(got), len(want))
	}
	for _, e := range got {
		var st unix.Stat_t
		must(t, unix.Lstat(filepath.Join(dir, string(e.Name)), &st))
		if e.Key() != KeyOf(&st) || e.Kind != want[string(e.Name)] {
			t.Errorf("%s: inode %v of kind %o, want %v of kind %o", e.Name, e.Key(), e.Kind, KeyOf(&st), want[string(e.Name)])
		}
		delete(want, string(e.Name))
	}
	if len(want) > 0 {
		t.Errorf("left out or given twice: %v", want)
	}
}

// TestDirSeek: at the Off of each entry the entries after it follow, in the same order, also when
// another name has gone meanwhile.
func TestDirSeek(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for i := range 30 {
		plant(t, dir, fmt.Sprint(i), "")
	}
	d, all := list(t, dir)
	gone := len(all) - 1
	must(t, os.Remove(filepath.Join(dir, string(all[gone].Name))))
	for i := range gone {
		must(t, d.Seek(0))
		_, err := d.Peek() // entries that are read are dropped
		must(t, err)
		must(t, d.Seek(all[i].Off))
		if got, want := names(rest(t, d)), names(all[i+1:gone]); !slices.Equal(got, want) {
			t.Fatalf("after entry %d: %v, want %v", i, got, want)
		}
	}
	must(t, d.Seek(0))
	_, err := d.Peek()
	must(t, err)
	plant(t, dir, "new", "")
	must(t, d.Seek(0))
	if got := names(rest(t, d)); !slices.Contains(got, "new") || len(got) != len(all) {
		t.Errorf("from the beginning: %v, want what is there now", got)
	}
	if err := d.Seek(1 << 63); !errors.Is(err, unix.EINVAL) {
		t.Errorf("seek to 1<<63: %v, want EINVAL", err)
	}
}

func TestDirPeek(t *testing.T) {
	t.Parallel()
	d, all := list(t, t.TempDir())
	if len(all) != 0 {
		t.Fatalf("an empty directory has %v", names(all))
	}
	must(t, d.Seek(0))
	var seen []string
	for range 2 { // "." and ".."
		first, err := d.Peek()
		must(t, err)
		again, err := d.Peek()
		must(t, err)
		if string(first.Name) != string(again.Name) {
			t.Fatalf("peek gives %s, then %s", first.Name, again.Name)
		}
		seen = append(seen, string(first.Name))
		d.Take()
	}
	e, err := d.Peek()
	if slices.Sort(seen); !slices.Equal(seen, []string{".", ".."}) || e != nil || err != nil {
		t.Errorf("took %v, then %v, %v", seen, e, err)
	}
}

func TestOpenDirRefuses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	plantKinds(t, dir)
	must(t, os.Symlink("dir", filepath.Join(dir, "dirlink")))
	fd := openDir(t, dir)
	for name, want := range map[string]error{"dir": nil, ".": nil, "file": unix.ENOTDIR, "dirlink": unix.ENOTDIR, "pipe": unix.ENOTDIR, "none": unix.ENOENT} {
		d, err := OpenDir(fd, name, unix.O_NOATIME)
		if !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", name, err, want)
		}
		if d != nil && errors.Join(d.Sync(), d.Close(), d.Close()) != nil {
			t.Errorf("%s: sync and two closes give an error", name)
		}
	}
}

func TestDirAccessTime(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name         string
		flags        int
		quiet, leave bool
	}{
		{"as a reader", 0, false, true},
		{"for itself", unix.O_NOATIME, false, false},
		{"made quiet", 0, true, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			makeOld(t, dir)
			d, err := OpenDir(unix.AT_FDCWD, dir, c.flags)
			must(t, err)
			defer d.Close()
			d.SetQuiet(c.quiet)
			rest(t, d)
			switch got := wasRead(t, dir); {
			case c.leave && !got:
				t.Skip("this file system is mounted noatime")
			case got != c.leave:
				t.Errorf("an access time is left: %t", got)
			}
		})
	}
}

// dirent is a struct linux_dirent64 that says to be of size bytes.
func dirent(size uint16, name string) []byte {
	b := make([]byte, 19, 19+len(name))
	binary.NativeEndian.PutUint64(b, 7)
	binary.NativeEndian.PutUint64(b[8:], 8)
	binary.NativeEndian.PutUint16(b[16:], size)
	b[18] = unix.DT_REG
	return append(b, name...)
}

func TestParseEntry(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		entry []byte
		want  string
		err   error
	}{
		{"padded", dirent(24, "ab\x00\x00\x00"), "ab", nil},
		{"another after it", append(dirent(22, "ab\x00"), "more"...), "ab", nil},
		{"no end of the name", dirent(21, "ab"), "ab", nil},
		{"nothing", nil, "", unix.EIO},
		{"half a head", dirent(24, "")[:18], "", unix.EIO},
		{"of no size", dirent(0, "ab\x00"), "", unix.EIO},
		{"smaller than its head", dirent(18, "ab\x00"), "", unix.EIO},
		{"longer than what was read", dirent(23, "ab\x00"), "", unix.EIO},
	} {
		e, size, err := ParseEntry(c.entry)
		if string(e.Name) != c.want || !errors.Is(err, c.err) {
			t.Errorf("%s: %q, %v, want %q, %v", c.name, e.Name, err, c.want, c.err)
		}
		if err == nil && (e.Ino != 7 || e.Off != 8 || e.Kind != unix.S_IFREG || size < 19) {
			t.Errorf("%s: %+v of %d bytes", c.name, e, size)
		}
	}
}

func FuzzParseEntry(f *testing.F) {
	one := dirent(24, "name\x00")
	f.Add(one)
	f.Add(one[:18])
	f.Add(append(one, one...))
	f.Fuzz(func(t *testing.T, b []byte) {
		for len(b) > 0 {
			e, size, err := ParseEntry(b)
			if err != nil {
				return
			}
			if size <= 0 || size > len(b) || len(e.Name) > size {
				t.Fatalf("entry of %d bytes, name of %d, in %d", size, len(e.Name), len(b))
			}
			b = b[size:]
		}
	})
}
