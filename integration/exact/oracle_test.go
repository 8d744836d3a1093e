package exact

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"unsafe"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"vmcryptfs/integration/mounttest"
	"vmcryptfs/integration/tally"
)

// oracle is a datastore on ext4 and, on the same ext4, a plain directory as the standard: the
// checks do the same in both and write down their observations.
type oracle struct {
	d     *mounttest.Datastore
	plain string
}

// newOracle mounts a datastore over a directory of a new ext4 in an image.
func newOracle(t *testing.T, options ...string) *oracle {
	t.Helper()
	top := t.TempDir()
	image, ext4 := filepath.Join(top, "ext4.img"), filepath.Join(top, "ext4")
	mounttest.Tool(t, "truncate", "-s", "3G", image)
	mounttest.Tool(t, "mkfs.ext4", "-q", "-F", "-N", "300000", image)
	mkdirs(t, ext4)
	mounttest.Tool(t, "mount", "-o", "loop", image, ext4)
	t.Cleanup(func() { _ = unix.Unmount(ext4, unix.MNT_DETACH) })
	d := mounttest.NewUnmounted(t, mounttest.Embedded{Dir: filepath.Join(top, "devkms")}, append(options, "-o", "suid,dev")...)
	d.Backing = filepath.Join(ext4, "backing")
	o := &oracle{d, filepath.Join(ext4, "plain")}
	mkdirs(t, d.Backing, o.plain)
	d.Mount()
	for _, dir := range []string{d.Mnt, ext4} { // other users come here, too
		for ; len(dir) > len(os.TempDir()); dir = filepath.Dir(dir) {
			if err := os.Chmod(dir, 0o755); err != nil {
				t.Fatal(err)
			}
		}
	}
	return o
}

func mkdirs(t *testing.T, dirs ...string) {
	t.Helper()
	for _, dir := range dirs {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

// witness does the steps of a check in one directory and writes down the observations.
type witness struct {
	t    *testing.T
	dir  string
	ext  string // of regular files: decides whether they are encrypted
	seen []string
	away bool // on the thread of as
}

// check is a number of steps. The observations must not depend on the clock or on numbers chosen
// by the file system.
type check struct {
	name string
	do   func(*witness)
}

// compare does each check on the mount, with names of both classes, and in the plain
// directory.
func (o *oracle) compare(t *testing.T, checks []check) {
	t.Helper()
	for _, ext := range []string{".img", ".log"} {
		for _, c := range checks {
			t.Run(c.name+ext, func(t *testing.T) { o.compareOne(t, c, ext) })
		}
	}
}

func (o *oracle) compareOne(t *testing.T, c check, ext string) {
	var seen [2][]string
	for i, top := range []string{o.d.Mnt, o.plain} {
		w := &witness{t: t, dir: filepath.Join(top, c.name+ext), ext: ext}
		mkdirs(t, w.dir)
		w.must(os.Chmod(w.dir, 0o777))
		c.do(w)
		seen[i] = w.seen
	}
	if len(seen[1]) == 0 {
		t.Error("nothing was looked at")
	}
	tally.Add(t, "operations compared", len(seen[1]))
	if diff := cmp.Diff(seen[1], seen[0]); diff != "" {
		t.Errorf("-plain ext4 +mount:\n%s", diff)
	}
}

func (w *witness) path(name string) string { return filepath.Join(w.dir, name) }

// file is the path of a regular file in the check's class.
func (w *witness) file(name string) string { return w.path(name + w.ext) }

// saw writes down a line.
func (w *witness) saw(format string, args ...any) {
	w.seen = append(w.seen, fmt.Sprintf(format, args...))
}

// tried writes down the result of a call.
func (w *witness) tried(what string, err error) bool {
	w.saw("%s: %s", what, errnoName(err))
	return err == nil
}

// must requires a precondition of a check. Callable from as.
func (w *witness) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Errorf("in %s: %v", w.dir, err)
		if w.away {
			runtime.Goexit()
		}
		w.t.FailNow()
	}
}

func errnoName(err error) string {
	var errno unix.Errno
	switch {
	case err == nil:
		return "ok"
	case errors.As(err, &errno):
		return unix.ErrnoName(errno)
	default:
		return err.Error()
	}
}

// user is the user of a call.
type user struct {
	name   string
	uid    uint32
	gid    uint32
	groups []uint32 // supplementary
}

const team = 2001 // a group of some of the users

var (
	root     = user{name: "root"}
	owner    = user{name: "owner", uid: 1001, gid: 1001}
	member   = user{name: "member", uid: 1002, gid: 1002, groups: []uint32{team, 3000}}
	stranger = user{name: "stranger", uid: 65534, gid: 65534}
	users    = []user{root, owner, member, stranger}
)

// as runs f as u with umask 022, on a thread that ends with f: credentials belong to a thread in
// Linux, and so do umask and working directory once unshared.
func (w *witness) as(u user, f func()) {
	w.t.Helper()
	w.away = true
	done, finished := make(chan struct{}), false
	go func() {
		defer close(done)
		runtime.LockOSThread()
		w.must(unix.Unshare(unix.CLONE_FS))
		unix.Umask(0o022)
		if u.uid != 0 {
			w.must(become(u))
		}
		f()
		finished = true
	}()
	<-done
	w.away = false
	if !finished {
		w.t.FailNow()
	}
}

// become gives up root for this thread alone; the functions of package unix would change all
// threads.
func become(u user) error {
	groups := append([]uint32{u.gid}, u.groups...)
	for _, call := range [][4]uintptr{
		{unix.SYS_SETGROUPS, uintptr(len(groups)), uintptr(unsafe.Pointer(&groups[0]))},
		{unix.SYS_SETRESGID, uintptr(u.gid), uintptr(u.gid), uintptr(u.gid)},
		{unix.SYS_SETRESUID, uintptr(u.uid), uintptr(u.uid), uintptr(u.uid)},
	} {
		if _, _, errno := unix.RawSyscall(call[0], call[1], call[2], call[3]); errno != 0 {
			return errno
		}
	}
	runtime.KeepAlive(groups)
	return nil
}

// aligned returns memory accepted by O_DIRECT everywhere.
func aligned(n int) []byte {
	b := make([]byte, n+4096)
	skip := -uintptr(unsafe.Pointer(&b[0])) & 4095
	return b[skip:][:n:n]
}

// create makes a file with the content and mode, whatever the umask.
func (w *witness) create(path string, content string, mode uint32) {
	w.t.Helper()
	w.must(os.WriteFile(path, []byte(content), 0o600))
	w.must(unix.Chmod(path, mode))
}

// look writes down lstat of a path without numbers, times and, of directories, size.
func (w *witness) look(what, path string) {
	var first unix.Statx_t // first the result that may come from the kernel's memory
	var st unix.Stat_t
	_ = unix.Statx(unix.AT_FDCWD, path, unix.AT_SYMLINK_NOFOLLOW, unix.STATX_MODE|unix.STATX_TYPE, &first)
	if err := unix.Lstat(path, &st); err != nil {
		w.tried(what, err)
		return
	}
	if uint32(first.Mode) != st.Mode {
		w.saw("%s: mode %o, and then %o", what, first.Mode, st.Mode)
	}
	size := st.Size
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		size = 0
	}
	w.saw("%s: mode %o owner %d:%d links %d size %d device %#x", what, st.Mode, st.Uid, st.Gid, st.Nlink, size, st.Rdev)
}
