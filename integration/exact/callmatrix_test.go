package exact

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"vmcryptfs/integration/mounttest"
	"vmcryptfs/integration/tally"
)

// pathCall is a system call on a path, or, with two paths, on the path and one of the partners.
type pathCall struct {
	name string
	do   func(w *witness, path string) error
	two  bool
}

// pathCalls are the system calls on a path.
var pathCalls = []pathCall{
	{"open to read", func(_ *witness, p string) error { return mounttest.OpenErr(p, unix.O_RDONLY|unix.O_NONBLOCK) }, false},
	{"open to write", func(_ *witness, p string) error { return mounttest.OpenErr(p, unix.O_WRONLY|unix.O_NONBLOCK) }, false},
	{"open to truncate", func(_ *witness, p string) error {
		return mounttest.OpenErr(p, unix.O_RDWR|unix.O_TRUNC|unix.O_NONBLOCK)
	}, false},
	{"open, no link", func(_ *witness, p string) error {
		return mounttest.OpenErr(p, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK)
	}, false},
	{"open directory", func(_ *witness, p string) error { return mounttest.OpenErr(p, unix.O_RDONLY|unix.O_DIRECTORY) }, false},
	{"create", func(_ *witness, p string) error {
		return mounttest.OpenErr(p, unix.O_RDWR|unix.O_CREAT|unix.O_NONBLOCK)
	}, false},
	{"create new", func(_ *witness, p string) error { return mounttest.OpenErr(p, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL) }, false},
	{"unnamed", func(_ *witness, p string) error { return mounttest.OpenErr(p, unix.O_RDWR|unix.O_TMPFILE) }, false},
	{"stat", func(_ *witness, p string) error { return unix.Stat(p, new(unix.Stat_t)) }, false},
	{"lstat", func(_ *witness, p string) error { return unix.Lstat(p, new(unix.Stat_t)) }, false},
	{"statfs", func(_ *witness, p string) error { return unix.Statfs(p, new(unix.Statfs_t)) }, false},
	{"readlink", func(_ *witness, p string) error { _, err := unix.Readlink(p, make([]byte, 10)); return err }, false},
	{"access to read", func(_ *witness, p string) error { return unix.Faccessat(unix.AT_FDCWD, p, unix.R_OK, 0) }, false},
	{"access to write", func(_ *witness, p string) error { return unix.Faccessat(unix.AT_FDCWD, p, unix.W_OK, 0) }, false},
	{"access to execute", func(_ *witness, p string) error { return unix.Faccessat(unix.AT_FDCWD, p, unix.X_OK, 0) }, false},
	{"chdir", func(_ *witness, p string) error { return unix.Chdir(p) }, false},
	{"truncate", func(_ *witness, p string) error {
		return mounttest.Uninterrupted(func() error { return unix.Truncate(p, 3) })
	}, false},
	{"chmod", func(_ *witness, p string) error { return unix.Chmod(p, 0o6711) }, false},
	{"chown", func(_ *witness, p string) error { return unix.Chown(p, 1003, team) }, false},
	{"lchown", func(_ *witness, p string) error { return unix.Lchown(p, -1, team) }, false},
	{"set times", func(_ *witness, p string) error {
		return unix.UtimesNanoAt(unix.AT_FDCWD, p, []unix.Timespec{{Sec: 1}, {Sec: 2}}, 0)
	}, false},
	{"touch", func(_ *witness, p string) error { return unix.UtimesNanoAt(unix.AT_FDCWD, p, nil, 0) }, false},
	{"touch a link", func(_ *witness, p string) error {
		return unix.UtimesNanoAt(unix.AT_FDCWD, p, nil, unix.AT_SYMLINK_NOFOLLOW)
	}, false},
	{"set attribute", func(_ *witness, p string) error { return unix.Setxattr(p, "user.a", []byte("v"), 0) }, false},
	{"get attribute", func(_ *witness, p string) error { _, err := unix.Getxattr(p, "user.x", nil); return err }, false},
	{"list attributes", func(_ *witness, p string) error { _, err := unix.Listxattr(p, nil); return err }, false},
	{"mkdir", func(_ *witness, p string) error { return unix.Mkdir(p, 0o7777) }, false},
	{"mkfifo", func(_ *witness, p string) error { return unix.Mkfifo(p, 0o7777) }, false},
	{"mknod", func(_ *witness, p string) error { return unix.Mknod(p, unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))) }, false},
	{"mknod of a file", func(_ *witness, p string) error { return unix.Mknod(p, unix.S_IFREG|0o640, 0) }, false},
	{"symlink", func(_ *witness, p string) error { return unix.Symlink("anywhere", p) }, false},
	{"link to it", func(w *witness, p string) error { return unix.Link(p, w.file("linked")) }, true},
	{"link as it", func(w *witness, p string) error { return unix.Link(w.file("mine"), p) }, true},
	{"rename it", func(w *witness, p string) error { return unix.Rename(p, w.file("renamed")) }, true},
	{"rename to it", func(w *witness, p string) error { return unix.Rename(w.file("mine"), p) }, true},
	{"rename a directory to it", func(w *witness, p string) error { return unix.Rename(w.path("mydir"), p) }, true},
	{"unlink", func(_ *witness, p string) error { return unix.Unlink(p) }, false},
	{"rmdir", func(_ *witness, p string) error { return unix.Rmdir(p) }, false},
}

// TestPathCalls makes every call on every kind of path and as every user, each time in a new
// tree, and compares errno and the tree afterwards.
func TestPathCalls(t *testing.T) {
	t.Parallel()
	o := newOracle(t)
	var checks []check
	for _, c := range pathCalls {
		checks = append(checks,
			check{c.name, func(w *witness) { w.onKinds(c) }},
			check{c.name + ", permissions", func(w *witness) { w.withModes(c) }})
	}
	o.compare(t, checks)
}

// partners makes the second paths of a call with two paths.
func (w *witness) partners(c pathCall, u user) {
	if !c.two {
		return
	}
	for _, name := range []string{"linked", "renamed", "mine"} {
		w.must(os.RemoveAll(w.file(name)))
	}
	w.must(os.RemoveAll(w.path("mydir")))
	w.create(w.file("mine"), "mine", 0o644)
	w.must(os.Mkdir(w.path("mydir"), 0o755))
	for _, path := range []string{w.file("mine"), w.path("mydir")} {
		w.must(unix.Chown(path, int(u.uid), int(u.gid)))
	}
}

// onKinds makes a call on each kind of path, as the owner and as root.
func (w *witness) onKinds(c pathCall) {
	for _, u := range []user{root, owner} {
		tree := w.path(u.name)
		paths := w.kinds(tree)
		for _, name := range slices.Sorted(maps.Keys(paths)) {
			w.partners(c, u)
			w.as(u, func() { w.tried(u.name+", "+name, c.do(w, paths[name])) })
			w.look("afterwards", strings.TrimRight(paths[name], "/"))
		}
	}
}

// kinds makes one of each kind of path, owned by owner.
func (w *witness) kinds(tree string) map[string]string {
	at := func(name string) string { return tree + "/" + name + w.ext }
	long := strings.Repeat("n", 255-len(w.ext))
	w.must(os.Mkdir(tree, 0o777))
	w.must(unix.Chmod(tree, 0o777))
	w.create(at("file"), "content", 0o644)
	w.create(at(long), "content", 0o644)
	for _, dir := range []string{"empty", "full", "full/sub", "behind"} {
		w.must(os.Mkdir(tree+"/"+dir, 0o755))
	}
	w.must(unix.Mkfifo(at("fifo"), 0o644))
	w.must(unix.Mknod(at("device"), unix.S_IFCHR|0o644, int(unix.Mkdev(1, 3))))
	w.must(unix.Mknod(at("socket"), unix.S_IFSOCK|0o644, 0))
	for name, target := range map[string]string{
		"to file": "behind-file" + w.ext, "to dir": "behind", "to nothing": "made" + w.ext,
		"loop": "loop" + w.ext, "longest": strings.Repeat("x/", 2047) + "x",
	} {
		w.must(unix.Symlink(target, at(name)))
	}
	w.create(at("behind-file"), "content", 0o644)
	w.must(filepath.WalkDir(tree, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return unix.Lchown(path, int(owner.uid), int(owner.gid))
	}))
	return map[string]string{
		"a file": at("file"), "a file/": at("file") + "/", "under a file": at("file") + "/x",
		"an empty directory": tree + "/empty", "an empty directory/": tree + "/empty/", "an empty directory/.": tree + "/empty/.",
		"a full directory": tree + "/full", "a full directory/..": tree + "/full/..",
		"nothing": at("nothing"), "nothing/": at("nothing") + "/", "under nothing": tree + "/no/x", "the empty path": "",
		"a fifo": at("fifo"), "a device": at("device"), "a socket": at("socket"),
		"a link to a file": at("to file"), "a link to a directory": at("to dir"), "a link to a directory/": at("to dir") + "/",
		"a link to nothing": at("to nothing"), "a loop": at("loop"), "under a loop": at("loop") + "/x", "the longest link": at("longest"),
		"255 bytes": at(long), "256 bytes": at(long + "n"), "a part of 256 bytes": tree + "/" + strings.Repeat("d", 256) + "/x",
		"the longest path": padded(at("file"), 4095), "too long a path": padded(at("file"), 4096),
	}
}

// padded makes a path n bytes long by meaningless slashes.
func padded(path string, n int) string {
	return strings.Repeat("/", n-len(path)) + path
}

// withModes makes a call on a file, a directory and a new name below directories of
// several modes, as every user.
func (w *witness) withModes(c pathCall) {
	modes := []uint32{0o1777, 0o2775, 0o644}
	if tally.Slow() {
		modes = append(modes, 0o777, 0o755, 0o1775, 0o711, 0o333, 0o007)
	}
	for _, mode := range modes {
		for _, u := range users {
			dir := w.path("dir")
			w.must(os.Mkdir(dir, 0o777))
			w.create(dir+"/file"+w.ext, "content", 0o664)
			w.must(os.Mkdir(dir+"/sub", 0o775))
			for _, path := range []string{dir + "/file" + w.ext, dir + "/sub", dir} {
				w.must(unix.Chown(path, int(owner.uid), team))
			}
			w.must(unix.Chmod(dir, mode))
			for _, name := range []string{"file" + w.ext, "sub", "new" + w.ext} {
				w.partners(c, u)
				w.as(u, func() { w.tried(fmt.Sprintf("%s, %s in %o", u.name, name, mode), c.do(w, dir+"/"+name)) })
				w.look("afterwards", dir+"/"+name)
			}
			w.must(os.RemoveAll(dir))
		}
	}
}
