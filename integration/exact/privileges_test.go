package exact

import (
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"vmcryptfs/integration/mounttest"
)

// TestPrivileges compares which calls remove suid and sgid, which users may set the bits, which
// may give a file away, and what a new file inherits from its directory.
func TestPrivileges(t *testing.T) {
	t.Parallel()
	newOracle(t).compare(t, []check{
		{"cleared", (*witness).privilegesCleared},
		{"chmod", (*witness).chmodAll},
		{"chown", (*witness).chownAll},
		{"inherited", (*witness).inherited},
	})
}

// fileChange changes a file of at least 9000 bytes, open for writing.
type fileChange struct {
	name string
	do   func(f *os.File, direct int) error
}

var fileChanges = []fileChange{
	{"read", func(f *os.File, _ int) error { _, err := f.Read(make([]byte, 5)); return err }},
	{"write", func(f *os.File, _ int) error { _, err := f.Write([]byte("x")); return err }},
	{"append", func(f *os.File, _ int) error { _, err := f.WriteAt([]byte("x"), 9000); return err }},
	{"write nothing", func(f *os.File, _ int) error { _, err := f.Write(nil); return err }},
	{"write directly", func(_ *os.File, direct int) error {
		_, err := unix.Pwrite(direct, aligned(4096), 4096)
		return err
	}},
	{"store", func(f *os.File, _ int) error { return storeByte(f) }},
	{"ftruncate", func(f *os.File, _ int) error { return f.Truncate(5) }},
	{"grow", func(f *os.File, _ int) error { return f.Truncate(50000) }},
	{"truncate", func(f *os.File, _ int) error { return os.Truncate(f.Name(), 5) }},
	{"open to truncate", func(f *os.File, _ int) error { return mounttest.OpenErr(f.Name(), unix.O_WRONLY|unix.O_TRUNC) }},
	{"allocate", func(f *os.File, _ int) error { return allocates(0)(f) }},
	{"allocate beyond", func(f *os.File, _ int) error { return allocates(unix.FALLOC_FL_KEEP_SIZE)(f) }},
	{"punch", func(f *os.File, _ int) error {
		return allocates(unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE)(f)
	}},
	{"zero", func(f *os.File, _ int) error { return allocates(unix.FALLOC_FL_ZERO_RANGE)(f) }},
	{"copy into", func(f *os.File, _ int) error {
		from, to := int64(0), int64(20)
		_, err := unix.CopyFileRange(int(f.Fd()), &from, int(f.Fd()), &to, 5, 0)
		return err
	}},
	{"chown", func(f *os.File, _ int) error { return f.Chown(-1, team) }},
	{"chown to the same", func(f *os.File, _ int) error { return f.Chown(int(owner.uid), -1) }},
	{"set an attribute", func(f *os.File, _ int) error { return unix.Fsetxattr(int(f.Fd()), "user.a", nil, 0) }},
	{"set times", func(f *os.File, _ int) error { return unix.Futimes(int(f.Fd()), []unix.Timeval{{Sec: 1}, {Sec: 1}}) }},
	{"rename", func(f *os.File, _ int) error { return os.Rename(f.Name(), f.Name()) }},
}

// privilegesCleared changes a file with suid or sgid as each user.
func (w *witness) privilegesCleared() {
	content := make([]byte, 9000)
	for _, mode := range []uint32{0o6777, 0o6767, 0o4666, 0o2676} {
		for _, u := range users {
			for _, c := range fileChanges {
				path := w.file("file")
				w.must(os.WriteFile(path, content, 0o666))
				w.must(unix.Chown(path, int(owner.uid), int(owner.gid)))
				w.must(unix.Chmod(path, mode))
				w.as(u, func() {
					fd, err := mounttest.Open(path, unix.O_RDWR, 0)
					w.must(err)
					f := os.NewFile(uintptr(fd), path)
					direct, err := mounttest.Open(path, unix.O_RDWR|unix.O_DIRECT, 0)
					w.must(err)
					what := fmt.Sprintf("%s by %s, mode %o", c.name, u.name, mode)
					w.tried(what, mounttest.Uninterrupted(func() error { return c.do(f, direct) }))
					w.must(unix.Close(direct))
					w.must(f.Close())
				})
				w.look("afterwards", path)
				w.must(os.Remove(path))
			}
		}
	}
}

// chmodAll sets each mode on each kind of thing, as each user, with a group of the user's or
// another.
func (w *witness) chmodAll() {
	for _, group := range []uint32{owner.gid, team} {
		w.create(w.file("file"), "", 0o644)
		w.must(os.Mkdir(w.path("dir"), 0o755))
		w.must(unix.Mkfifo(w.path("fifo"), 0o644))
		w.must(unix.Symlink("file"+w.ext, w.path("link")))
		for _, path := range []string{w.file("file"), w.path("dir"), w.path("fifo"), w.path("link")} {
			for _, u := range append(users, user{name: "owner in the team", uid: owner.uid, gid: owner.gid, groups: []uint32{team}}) {
				w.must(unix.Lchown(path, int(owner.uid), int(group)))
				w.as(u, func() {
					for _, mode := range []uint32{0o7777, 0, 0o2755, 0o4711, 0o1777, 0o2644} {
						w.tried(fmt.Sprintf("%s sets %o", u.name, mode), unix.Chmod(path, mode))
						w.look(path[len(w.dir):], path)
					}
				})
			}
		}
		for _, name := range []string{"file" + w.ext, "dir", "fifo", "link"} {
			w.must(os.RemoveAll(w.path(name)))
		}
	}
}

// chownAll gives things to users and groups, as each user. (-1 and -1, to nobody, is left out:
// FUSE does not ask the file system.)
func (w *witness) chownAll() {
	w.create(w.file("file"), "", 0o644)
	w.must(os.Mkdir(w.path("dir"), 0o755))
	w.must(unix.Mkfifo(w.path("fifo"), 0o644))
	w.must(unix.Symlink("nowhere", w.path("link")))
	anyone := append(users, user{name: "owner in the team", uid: owner.uid, gid: owner.gid, groups: []uint32{team}})
	for _, path := range []string{w.file("file"), w.path("dir"), w.path("fifo"), w.path("link")} {
		for _, u := range anyone {
			for _, to := range [][2]int{{1001, -1}, {-1, 1001}, {-1, team}, {1002, -1}, {1002, team}, {0, 0}, {-1, 65534}} {
				w.must(unix.Lchown(path, int(owner.uid), int(owner.gid)))
				if path != w.path("link") {
					w.must(unix.Chmod(path, 0o6777))
				}
				w.as(u, func() { w.tried(fmt.Sprintf("%s gives to %v", u.name, to), unix.Lchown(path, to[0], to[1])) })
				w.look(path[len(w.dir):], path)
			}
		}
	}
}

// inherited makes things in directories of several modes and groups, with umasks.
func (w *witness) inherited() {
	for _, mode := range []uint32{0o777, 0o2777, 0o3777} {
		for _, u := range users {
			for _, umask := range []int{0, 0o022, 0o077, 0o777} {
				dir := w.path("dir")
				w.must(os.Mkdir(dir, 0o755))
				w.must(unix.Chown(dir, int(owner.uid), team))
				w.must(unix.Chmod(dir, mode))
				w.as(u, func() {
					unix.Umask(umask)
					for _, of := range []uint32{0o7777, 0o2775, 0o640} {
						w.makeEach(fmt.Sprintf("%s, umask %o, in %o", u.name, umask, mode), dir, of)
					}
				})
				w.must(os.RemoveAll(dir))
			}
		}
	}
}

// makeEach makes one of each kind with a mode, and removes everything.
func (w *witness) makeEach(who, dir string, mode uint32) {
	path := dir + "/new" + w.ext
	for kind, make := range []func() error{
		func() error {
			fd, err := mounttest.Open(path, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL, mode)
			if err != nil {
				return err
			}
			return unix.Close(fd)
		},
		func() error { return unix.Mkdir(path, mode) },
		func() error { return unix.Mkfifo(path, mode) },
		func() error { return unix.Mknod(path, unix.S_IFSOCK|mode, 0) },
		func() error { return unix.Mknod(path, unix.S_IFREG|mode, 0) },
		func() error { return unix.Symlink("x", path) },
		func() error { return unix.Mknod(path, unix.S_IFBLK|mode, int(unix.Mkdev(7, 200))) },
	} {
		w.tried(fmt.Sprintf("%s makes %d of %o", who, kind, mode), make())
		w.look("made", path)
		w.attribute(path, aclAccess)
		w.must(os.RemoveAll(path))
	}
}
