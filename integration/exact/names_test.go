package exact

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"vmcryptfs/integration/mounttest"
)

// TestNames compares names of every length and of any bytes, and paths deeper than a
// system call takes.
func TestNames(t *testing.T) {
	t.Parallel()
	newOracle(t).compare(t, []check{
		{"lengths", (*witness).nameLengths},
		{"bytes", (*witness).nameBytes},
		{"deep", (*witness).deepPath},
		{"links", (*witness).symbolicLinks},
		{"kinds", (*witness).nodeKinds},
		{"hard links", (*witness).hardLinks},
	})
}

func (w *witness) nameLengths() {
	for _, n := range []int{6, 15, 16, 254, 255, 256, 300, 4096} {
		for _, c := range []string{"n", "\u00e9", "\xff"} {
			name := strings.Repeat(c, n)[:n]
			if len(name) > len(w.ext)+1 {
				name = name[:len(name)-len(w.ext)] + w.ext
			}
			path := w.dir + "/" + name
			w.tried(fmt.Sprintf("create %d bytes of %q", len(name), c), mounttest.OpenErr(path, unix.O_CREAT|unix.O_WRONLY))
			w.look("made", path)
			w.tried("rename", unix.Rename(path, w.file("renamed")))
			w.tried("rename back", unix.Rename(w.file("renamed"), path))
			w.tried("link", unix.Link(path, w.file("linked")))
			w.tried("unlink", unix.Unlink(path))
			w.tried("mkdir", unix.Mkdir(path, 0o755))
			w.listing()
			w.tried("rmdir", unix.Rmdir(path))
			w.must(os.RemoveAll(w.file("linked")))
		}
	}
}

// nameBytes: a name is any bytes but slash and NUL.
func (w *witness) nameBytes() {
	var names []string
	for b := 1; b < 256; b++ {
		if b != '/' {
			names = append(names, string([]byte{'x', byte(b)})+w.ext)
		}
	}
	names = append(names, "\xff\xfe\xfd"+w.ext, "\u00e9"+w.ext, "e\u0301"+w.ext, "\xc3"+w.ext, " ", "...", "-", "a\nb"+w.ext, "FILE"+w.ext, "file"+w.ext)
	for i, name := range names {
		w.must(os.WriteFile(w.dir+"/"+name, []byte(fmt.Sprint(i)), 0o644))
	}
	for _, name := range names {
		text, err := os.ReadFile(w.dir + "/" + name)
		w.saw("%q holds %q %s", name, text, errnoName(err))
	}
	w.listing()
	for _, name := range names {
		w.tried("unlink", unix.Unlink(w.dir+"/"+name))
	}
	w.listing()
}

// deepPath walks down, by steps, to where no path leads.
func (w *witness) deepPath() {
	step := strings.Repeat("d", 200)
	w.as(root, func() {
		w.must(unix.Chdir(w.dir))
		for i := range 30 {
			w.must(unix.Mkdir(step, 0o755))
			w.must(unix.Chdir(step))
			w.must(os.WriteFile("file"+w.ext, []byte(fmt.Sprint("at depth ", i)), 0o644))
		}
		text, err := os.ReadFile("file" + w.ext)
		w.saw("%q %s", text, errnoName(err))
		_, err = unix.Getcwd(make([]byte, 100000))
		w.tried("getcwd", err)
		for _, depth := range []int{1, 18, 19, 20, 21} {
			path := strings.Repeat(step+"/", depth) + "file" + w.ext
			w.must(unix.Chdir(w.dir))
			w.tried(fmt.Sprintf("stat, depth %d, %d bytes", depth, len(path)), unix.Stat(path, new(unix.Stat_t)))
		}
		w.tried("rename a deep tree", unix.Rename(step, "top"))
		w.must(unix.Chdir("top/" + step + "/" + step))
		w.tried("rename below", unix.Rename(step, "moved"))
		w.look("file in the moved tree", "moved/file"+w.ext)
	})
}

func (w *witness) symbolicLinks() {
	for _, n := range []int{0, 1, 59, 60, 61, 255, 1000, 4094, 4095, 4096} {
		target := strings.Repeat("t", n)
		w.tried(fmt.Sprintf("link to %d bytes", n), unix.Symlink(target, w.path("link")))
		w.look("link", w.path("link"))
		for _, room := range []int{0, 1, 5000} {
			b := make([]byte, room)
			got, err := unix.Readlink(w.path("link"), b)
			w.saw("room %d: %d bytes, as set %v, %s", room, got, got >= 0 && string(b[:got]) == target[:min(got, n)], errnoName(err))
		}
		w.must(os.RemoveAll(w.path("link")))
	}
	last := w.file("file")
	w.create(last, "at the end", 0o644)
	for i := range 42 { // 40 are followed
		next := w.path(fmt.Sprint("chain", i))
		w.must(unix.Symlink(filepath.Base(last), next))
		w.tried(fmt.Sprintf("a chain of %d", i+1), unix.Stat(next, new(unix.Stat_t)))
		last = next
	}
}

// nodeKinds makes every kind of mknod(2), as root and as another user.
func (w *witness) nodeKinds() {
	for _, u := range []user{root, owner} {
		for _, kind := range []uint32{0, unix.S_IFREG, unix.S_IFCHR, unix.S_IFBLK, unix.S_IFIFO, unix.S_IFSOCK, unix.S_IFDIR, unix.S_IFLNK, 0o150000} {
			for _, dev := range []uint64{0, unix.Mkdev(1, 3), unix.Mkdev(0xfff, 0xfffff), unix.Mkdev(300, 5)} {
				w.as(u, func() {
					w.tried(fmt.Sprintf("%s makes %o of device %#x", u.name, kind, dev), unix.Mknod(w.file("node"), kind|0o644, int(dev)))
				})
				w.look("made", w.file("node"))
				w.must(os.RemoveAll(w.file("node")))
			}
		}
	}
	w.must(unix.Mknod(w.path("null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
	w.tried("write to a device", os.WriteFile(w.path("null"), []byte("gone"), 0))
	w.look("null", w.path("null"))
}

func (w *witness) hardLinks() {
	w.create(w.file("file"), "content", 0o644)
	for i := range 30 {
		w.must(unix.Link(w.file("file"), w.file(fmt.Sprint("name", i))))
	}
	w.look("31 names", w.file("name7"))
	w.must(unix.Chmod(w.file("name3"), 0o600))
	w.must(os.WriteFile(w.file("name4"), []byte("changed by another name"), 0))
	w.look("changed", w.file("name29"))
	var first, second unix.Stat_t
	w.must(unix.Stat(w.file("name1"), &first))
	w.must(unix.Stat(w.file("name2"), &second))
	w.saw("one inode: %v", first.Ino == second.Ino)
	w.must(os.Mkdir(w.path("dir"), 0o755))
	w.must(unix.Symlink("file"+w.ext, w.path("symlink")))
	w.tried("of a directory", unix.Link(w.path("dir"), w.path("dir2")))
	w.tried("of a symbolic link", unix.Link(w.path("symlink"), w.path("symlink2")))
	w.look("symlink2", w.path("symlink2"))
	w.tried("through it", unix.Linkat(unix.AT_FDCWD, w.path("symlink"), unix.AT_FDCWD, w.file("through"), unix.AT_SYMLINK_FOLLOW))
	w.tried("to another file system", unix.Link("/proc/version", w.file("far")))
	for i := range 30 {
		w.must(unix.Unlink(w.file(fmt.Sprint("name", i))))
	}
	w.look("the last but one", w.file("file"))
}
