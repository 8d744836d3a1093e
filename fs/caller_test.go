package fs

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// stranger is an unprivileged user.
const stranger = 65534

// asStranger runs do as the unprivileged user, on a thread that ends with do.
func asStranger(t *testing.T, do func()) {
	t.Helper()
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		err := giveUpRoot()
		if err == nil {
			do()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// giveUpRoot makes this thread the stranger's; package unix would change all threads.
func giveUpRoot() error {
	group := uint32(stranger)
	for _, call := range [][4]uintptr{
		{unix.SYS_SETGROUPS, 1, uintptr(unsafe.Pointer(&group))},
		{unix.SYS_SETRESGID, stranger, stranger, stranger},
		{unix.SYS_SETRESUID, stranger, stranger, stranger},
	} {
		if _, _, errno := unix.RawSyscall(call[0], call[1], call[2], call[3]); errno != 0 {
			return errno
		}
	}
	return nil
}

// openToAll lets every user reach the rig's directories by their paths.
func (r *rig) openToAll() {
	r.t.Helper()
	for _, dir := range []string{r.mnt, r.backing} {
		for ; len(dir) > len(os.TempDir()); dir = filepath.Dir(dir) {
			if err := os.Chmod(dir, 0o755); err != nil {
				r.t.Fatal(err)
			}
		}
	}
}

// TestNothingIsGivenByName: the owner of a directory of BACKING exchanges each new file there for a
// file of root's, over and over; root's file never becomes the attacker's.
func TestNothingIsGivenByName(t *testing.T) {
	var exchanged int64
	for what, create := range map[string]func(path string) error{
		"mkdir":     func(path string) error { return unix.Mkdir(path, 0o777) },
		"symlink":   func(path string) error { return unix.Symlink("x", path) },
		"mkfifo":    func(path string) error { return unix.Mkfifo(path, 0o6777) },
		"mknod":     func(path string) error { return unix.Mknod(path, unix.S_IFREG|0o6777, 0) },
		"socket":    func(path string) error { return unix.Mknod(path, unix.S_IFSOCK|0o777, 0) },
		"encrypted": func(path string) error { return os.WriteFile(path+".img", []byte("x"), 0o777) },
		"clear":     func(path string) error { return os.WriteFile(path+".log", []byte("x"), 0o777) },
		"bound":     func(path string) error { return os.WriteFile(path+".vmdk", []byte(descriptor), 0o777) },
	} {
		t.Run(what, func(t *testing.T) {
			r := newRig(t, nil)
			r.openToAll()
			if err := os.Mkdir(r.under("dir"), 0o777); err != nil {
				t.Fatal(err)
			}
			if err := os.Chown(r.under("dir"), stranger, stranger); err != nil {
				t.Fatal(err)
			}
			v := newVictim(r)
			for range 100 {
				v.attack(create, r.path("dir/new"))
				if t.Failed() {
					return
				}
			}
			exchanged += v.exchanged
		})
	}
	if exchanged == 0 {
		t.Error("nothing was ever exchanged: nothing is tested")
	}
}

// victim is a file of root's in a directory of the attacker's.
type victim struct {
	*rig
	dir       string
	file      *os.File
	before    unix.Stat_t
	exchanged int64
}

func newVictim(r *rig) *victim {
	v := &victim{rig: r, dir: r.under("dir")}
	r.t.Cleanup(func() { v.file.Close() })
	v.appear()
	return v
}

func (v *victim) appear() {
	v.t.Helper()
	var err error
	if v.file, err = os.OpenFile(filepath.Join(v.dir, "victim"), os.O_RDWR|os.O_CREATE, 0o640); err != nil {
		v.t.Fatal(err)
	}
	if err := unix.Fstat(int(v.file.Fd()), &v.before); err != nil {
		v.t.Fatal(err)
	}
}

// attack makes something at path, as the stranger, while the stranger exchanges each new file in
// the directory for the victim.
func (v *victim) attack(create func(string) error, path string) {
	v.t.Helper()
	var stop atomic.Bool
	attacking, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		asStranger(v.t, func() { v.exchange(&stop, attacking) })
	}()
	select {
	case <-attacking:
	case <-done: // the exchange could not begin, and said so
	}
	asStranger(v.t, func() { _ = create(path) }) // may fail: the file is gone
	stop.Store(true)
	<-done
	var now unix.Stat_t
	if err := unix.Fstat(int(v.file.Fd()), &now); err != nil {
		v.t.Fatal(err)
	}
	if now.Uid != v.before.Uid || now.Gid != v.before.Gid || now.Mode != v.before.Mode {
		v.t.Errorf("root's file has owner %d:%d, mode %o: it was made the attacker's", now.Uid, now.Gid, now.Mode)
	}
	if size, err := unix.Fgetxattr(int(v.file.Fd()), aclAccess, nil); err == nil {
		v.t.Errorf("root's file got an ACL of %d bytes", size)
	}
	v.idle() // the release of the new file, which may convert it, comes after its close(2)
	v.tidy(now.Ino)
}

// exchange exchanges until stopped.
func (v *victim) exchange(stop *atomic.Bool, attacking chan<- struct{}) {
	dir, err := unix.Open(v.dir, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		v.t.Error(err)
		return
	}
	defer unix.Close(dir)
	close(attacking)
	for !stop.Load() {
		for _, name := range []string{"new", "new.img", "new.log", "new.vmdk"} {
			if unix.Renameat2(dir, name, dir, "victim", unix.RENAME_EXCHANGE) == nil {
				v.exchanged++
			}
		}
	}
}

// tidy leaves the victim alone in the directory, under its name.
func (v *victim) tidy(ino uint64) {
	v.t.Helper()
	entries, err := os.ReadDir(v.dir)
	if err != nil {
		v.t.Fatal(err)
	}
	found := ""
	for _, e := range entries {
		path := filepath.Join(v.dir, e.Name())
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err == nil && st.Ino == ino {
			found = path
			continue
		}
		if err := os.Remove(path); err != nil {
			v.t.Fatal(err)
		}
	}
	if found == "" { // replaced, as the attacker could have done without us
		v.file.Close()
		v.appear()
		return
	}
	if err := os.Rename(found, filepath.Join(v.dir, "victim")); err != nil {
		v.t.Fatal(err)
	}
}

// TestMadeAsCaller: a caller's new file is the caller's from the first moment, and the threads of
// this process are its own again afterwards.
func TestMadeAsCaller(t *testing.T) {
	r := newRig(t, nil)
	dir, err := unix.Open(r.backing, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(dir)
	for _, owner := range []fuse.Owner{{Uid: stranger, Gid: 7}, {Uid: stranger, Gid: 0}, {Uid: 0, Gid: 7}, {}} {
		err := r.fs.daemon.as(owner, func() error {
			if uid, gid := fsIDs(); uid != owner.Uid || gid != owner.Gid {
				t.Errorf("the call is made as %d:%d, want %v", uid, gid, owner)
			}
			var caps [2]unix.CapUserData
			if err := unix.Capget(capHeader(), &caps[0]); err != nil || caps != r.fs.daemon.caps {
				t.Errorf("capabilities as %v: %x, %v, want %x", owner, caps, err, r.fs.daemon.caps)
			}
			return unix.Mkdirat(dir, "dir", 0o700)
		})
		if err != nil {
			t.Fatal(err)
		}
		var st unix.Stat_t
		if err := unix.Lstat(r.under("dir"), &st); err != nil || st.Uid != owner.Uid || st.Gid != owner.Gid {
			t.Errorf("made for %v: owner %d:%d, %v", owner, st.Uid, st.Gid, err)
		}
		if err := os.Remove(r.under("dir")); err != nil {
			t.Fatal(err)
		}
		wantOwnThreads(t)
	}
	wantErrno(t, "as nobody", r.fs.daemon.as(fuse.Owner{Uid: 1<<32 - 1}, func() error { return nil }), unix.EPERM)
	wantOwnThreads(t)
}

// wantOwnThreads checks that every thread of this process makes files with the process's identity:
// root, or a stranger of a test.
func wantOwnThreads(t *testing.T) {
	t.Helper()
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	for _, task := range tasks {
		status, err := os.ReadFile("/proc/self/task/" + task.Name() + "/status")
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) {
			continue // the thread has ended
		}
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(status)) {
			ids := strings.Fields(line) // real, effective, saved, file system
			if (ids[0] == "Uid:" || ids[0] == "Gid:") && ids[4] != ids[2] {
				t.Errorf("thread %s: %s", task.Name(), line)
			}
		}
	}
}

// TestDumpableStays: the kernel changes the dumpable flag with every identity, and the flag is put
// back.
func TestDumpableStays(t *testing.T) {
	const sysctl = "/proc/sys/fs/suid_dumpable"
	was, err := os.ReadFile(sysctl)
	if err != nil {
		t.Fatal(err)
	}
	dumpable, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = os.WriteFile(sysctl, was, 0)
		_ = unix.Prctl(unix.PR_SET_DUMPABLE, uintptr(min(dumpable, 1)), 0, 0, 0)
	})
	for _, set := range []string{"0", "1", "2"} {
		if err := os.WriteFile(sysctl, []byte(set), 0); err != nil {
			t.Logf("only as the host has it, %s: %v", was, err)
		}
		for _, want := range []int{0, 1} {
			if err := unix.Prctl(unix.PR_SET_DUMPABLE, uintptr(want), 0, 0, 0); err != nil {
				t.Fatal(err)
			}
			d, err := newDaemon()
			if err != nil {
				t.Fatal(err)
			}
			check := func() error {
				if got, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0); err != nil || got != want {
					t.Errorf("with fs.suid_dumpable %s it is %d, %v, want %d", set, got, err, want)
				}
				return nil
			}
			wantErrno(t, "call", d.as(fuse.Owner{Uid: stranger, Gid: stranger}, check), 0)
			_ = check()
		}
	}
}

// TestOtherDaemon: a process that may not become its callers makes files of its own user alone, and
// gives a group to no other files.
func TestOtherDaemon(t *testing.T) {
	r := newRig(t, nil)
	r.openToAll()
	r.prepare = func(f *FS) { f.daemon.mayBecome = false }
	r.remount()
	if err := os.Chmod(r.backing, 0o777); err != nil {
		t.Fatal(err)
	}
	for what, create := range map[string]func() error{
		"mkdir":   func() error { return unix.Mkdir(r.path("dir"), 0o777) },
		"symlink": func() error { return unix.Symlink("x", r.path("link")) },
		"clear":   func() error { return os.WriteFile(r.path("a.log"), nil, 0o666) },
		"img":     func() error { return os.WriteFile(r.path("a.img"), nil, 0o666) },
	} {
		asStranger(t, func() { wantErrno(t, what+" for another user", create(), unix.EPERM) })
	}
	if entries, err := os.ReadDir(r.mnt); err != nil || len(entries) > 0 {
		t.Errorf("made for another user: %v, %v", entries, err)
	}
	root := r.fs.root()
	for _, c := range []creation{
		{root, "dir", unix.S_IFDIR | 0o750, 0, fuse.Owner{Gid: 7}},
		{root, "fifo", unix.S_IFIFO | 0o6711, 0, fuse.Owner{Gid: 7}},
	} {
		if c.mode&unix.S_IFMT == unix.S_IFDIR {
			wantErrno(t, "mkdir", unix.Mkdirat(r.store.Fd(), c.name, c.permissions()), 0)
		} else {
			wantErrno(t, "mknod", unix.Mknodat(r.store.Fd(), c.name, c.mode, 0), 0)
		}
		fd, _ := openByPath(t, r.under(c.name))
		wantErrno(t, "give", r.fs.daemon.give(c, fd), 0)
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil || st.Gid != 7 || st.Mode != c.mode {
			t.Errorf("%s: group %d, mode %o, %v, want 7 and %o", c.name, st.Gid, st.Mode, err, c.mode)
		}
		other := c
		other.mode ^= unix.S_IFMT
		wantErrno(t, "give what is another thing", r.fs.daemon.give(other, fd), unix.EIO)
		wantErrno(t, "chown", unix.Lchown(r.under(c.name), stranger, 7), 0)
		wantErrno(t, "give what is another user's", r.fs.daemon.give(c, fd), unix.EIO)
		unix.Close(fd)
	}
}
