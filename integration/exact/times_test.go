package exact

import (
	"fmt"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vmcryptfs/integration/mounttest"
)

// TestTimes compares which calls change which times, and that times are kept to the nanosecond.
func TestTimes(t *testing.T) {
	t.Parallel()
	newOracle(t).compare(t, []check{
		{"kept", (*witness).timesKept},
		{"who may", (*witness).timesAllowed},
		{"changed", (*witness).timesChanged},
	})
}

var (
	now  = unix.Timespec{Nsec: unix.UTIME_NOW}
	omit = unix.Timespec{Nsec: unix.UTIME_OMIT}
)

// timesKept sets times of everything with times.
func (w *witness) timesKept() {
	w.create(w.file("file"), "content", 0o644)
	w.must(os.Mkdir(w.path("dir"), 0o755))
	w.must(unix.Symlink("anywhere", w.path("link")))
	w.must(unix.Mkfifo(w.path("fifo"), 0o644))
	for _, path := range []string{w.file("file"), w.path("dir"), w.path("link"), w.path("fifo")} {
		for _, c := range [][2]unix.Timespec{
			{{Sec: 1, Nsec: 1}, {Sec: 2, Nsec: 999999999}},
			{{Sec: 0, Nsec: 0}, {Sec: 1<<31 - 1, Nsec: 7}},
			{{Sec: -1, Nsec: 999999999}, {Sec: -1 << 31, Nsec: 0}},
			{{Sec: 1 << 31, Nsec: 123456789}, {Sec: 1<<33 + 5, Nsec: 1}},
			{{Sec: 1 << 40}, {Sec: -1 << 40}}, // beyond the disk's range
			{omit, {Sec: 5, Nsec: 5}}, {{Sec: 6, Nsec: 6}, omit}, {omit, omit},
			{now, omit}, {omit, now}, {now, now},
			{{Nsec: 1000000000}, omit}, {omit, {Nsec: -1}},
		} {
			before := time.Now().Add(-time.Hour).Unix()
			w.tried("utimensat", unix.UtimesNanoAt(unix.AT_FDCWD, path, c[:], unix.AT_SYMLINK_NOFOLLOW))
			var st unix.Stat_t
			w.must(unix.Lstat(path, &st))
			w.saw("%s: atime %s, mtime %s, set to %v", path[len(w.dir):], instant(st.Atim, before), instant(st.Mtim, before), c)
		}
	}
}

// instant is a time, or "now" for an unpredictable one: after the given second.
func instant(ts unix.Timespec, since int64) string {
	if ts.Sec >= since && ts.Sec < since+1<<20 {
		return "now"
	}
	return fmt.Sprintf("%d.%09d", ts.Sec, ts.Nsec)
}

// timesAllowed: the owner sets any time, a user with write permission sets the present one.
func (w *witness) timesAllowed() {
	for _, mode := range []uint32{0o644, 0o666, 0o444} {
		for _, u := range users {
			w.create(w.file("file"), "", mode)
			w.must(unix.Chown(w.file("file"), int(owner.uid), int(owner.gid)))
			w.as(u, func() {
				for _, times := range [][]unix.Timespec{nil, {now, now}, {now, omit}, {omit, now}, {omit, omit}, {{Sec: 1}, {Sec: 1}}} {
					w.tried(fmt.Sprintf("%s sets %v, mode %o", u.name, times, mode), unix.UtimesNanoAt(unix.AT_FDCWD, w.file("file"), times, 0))
				}
			})
		}
	}
}

// timedCall is a call whose effect on times is checked.
type timedCall struct {
	name string
	do   func(w *witness, path string) error
}

// timedCalls run on a file with content, in a directory of its own.
var timedCalls = []timedCall{
	{"write", func(_ *witness, p string) error {
		return withFile(p, func(f *os.File) error { _, err := f.Write([]byte("x")); return err })
	}},
	{"write nothing", func(_ *witness, p string) error {
		return withFile(p, func(f *os.File) error { _, err := f.Write(nil); return err })
	}},
	{"store", func(_ *witness, p string) error { return withFile(p, storeByte) }},
	{"open to truncate", func(_ *witness, p string) error { return mounttest.OpenErr(p, unix.O_RDWR|unix.O_TRUNC) }},
	{"open", func(_ *witness, p string) error { return mounttest.OpenErr(p, unix.O_RDWR|unix.O_CREAT) }},
	{"truncate", func(_ *witness, p string) error { return os.Truncate(p, 1) }},
	{"truncate to the same", func(_ *witness, p string) error { return os.Truncate(p, 7) }},
	{"grow", func(_ *witness, p string) error { return os.Truncate(p, 9999) }},
	{"ftruncate to the same", func(_ *witness, p string) error { return withFile(p, func(f *os.File) error { return f.Truncate(7) }) }},
	{"allocate", func(_ *witness, p string) error { return withFile(p, allocates(0)) }},
	{"allocate beyond", func(_ *witness, p string) error { return withFile(p, allocates(unix.FALLOC_FL_KEEP_SIZE)) }},
	{"punch", func(_ *witness, p string) error {
		return withFile(p, allocates(unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE))
	}},
	{"zero", func(_ *witness, p string) error { return withFile(p, allocates(unix.FALLOC_FL_ZERO_RANGE)) }},
	{"copy into", func(_ *witness, p string) error {
		return withFile(p, func(f *os.File) error {
			from, to := int64(0), int64(20)
			_, err := unix.CopyFileRange(int(f.Fd()), &from, int(f.Fd()), &to, 5, 0)
			return err
		})
	}},
	{"chmod", func(_ *witness, p string) error { return unix.Chmod(p, 0o600) }},
	{"chmod to the same", func(_ *witness, p string) error { return unix.Chmod(p, 0o644) }},
	{"chown", func(_ *witness, p string) error { return unix.Chown(p, 5, 6) }},
	{"chown to the same", func(_ *witness, p string) error { return unix.Chown(p, 0, 0) }},
	{"link", func(w *witness, p string) error { return unix.Link(p, p[:len(p)-4]+"2"+w.ext) }},
	{"unlink one of two", func(w *witness, p string) error { return unix.Unlink(p[:len(p)-4] + "1" + w.ext) }},
	{"rename", func(w *witness, p string) error { return unix.Rename(p, p[:len(p)-4]+"2"+w.ext) }},
	{"rename over", func(w *witness, p string) error { return unix.Rename(p[:len(p)-4]+"0"+w.ext, p) }},
	{"rename to itself", func(_ *witness, p string) error { return unix.Rename(p, p) }},
	{"exchange", func(w *witness, p string) error { return rename2(p, p[:len(p)-4]+"0"+w.ext, unix.RENAME_EXCHANGE) }},
	{"set an attribute", func(_ *witness, p string) error { return unix.Setxattr(p, "user.b", []byte("2"), 0) }},
	{"remove an attribute", func(_ *witness, p string) error { return unix.Removexattr(p, "user.a") }},
	{"mkdir", func(_ *witness, p string) error { return unix.Mkdir(p+"d", 0o755) }},
	{"symlink", func(_ *witness, p string) error { return unix.Symlink("x", p+"l") }},
	{"mkfifo", func(_ *witness, p string) error { return unix.Mkfifo(p+"f", 0o644) }},
	{"create", func(w *witness, p string) error {
		return mounttest.OpenErr(p[:len(p)-4]+"3"+w.ext, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL)
	}},
	{"stat", func(_ *witness, p string) error { return unix.Stat(p, new(unix.Stat_t)) }},
	{"fsync", func(_ *witness, p string) error { return withFile(p, (*os.File).Sync) }},
}

// withFile opens a file for a call.
func withFile(path string, call func(*os.File) error) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	return mounttest.Uninterrupted(func() error { return call(f) })
}

func allocates(mode uint32) func(*os.File) error {
	return func(f *os.File) error { return unix.Fallocate(int(f.Fd()), mode, 2, 5000) }
}

// storeByte changes a byte through a mapping.
func storeByte(f *os.File) error {
	m, err := unix.Mmap(int(f.Fd()), 0, 5, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	m[2]++
	if err := unix.Msync(m, unix.MS_SYNC); err != nil {
		return err
	}
	return unix.Munmap(m)
}

// timesChanged writes down which times of a file and its directory each call changes.
func (w *witness) timesChanged() {
	for _, c := range timedCalls {
		dir := w.path("dir")
		path := dir + "/file" + w.ext
		w.must(os.Mkdir(dir, 0o755))
		w.create(path, "content", 0o644)
		w.create(dir+"/file0"+w.ext, "another", 0o644)
		w.must(unix.Link(path, dir+"/file1"+w.ext))
		w.must(unix.Setxattr(path, "user.a", []byte("1"), 0))
		long := []unix.Timespec{{Sec: 1e9}, {Sec: 1e9}} // ago
		known := []string{path, dir, dir + "/file0" + w.ext}
		var fds []int // these descriptors may lose their names
		var before []unix.Stat_t
		for _, k := range known {
			w.must(unix.UtimesNanoAt(unix.AT_FDCWD, k, long, 0))
			fd, err := mounttest.Open(k, unix.O_RDONLY, 0)
			w.must(err)
			var st unix.Stat_t
			w.must(unix.Fstat(fd, &st))
			fds, before = append(fds, fd), append(before, st)
		}
		w.untilClockPasses(before[len(before)-1].Ctim)
		w.tried(c.name, c.do(w, path))
		for i, fd := range fds {
			var st unix.Stat_t
			w.must(unix.Fstat(fd, &st))
			w.saw("%s of %s: mtime %v, ctime %v", c.name, []string{"the file", "its directory", "another file"}[i],
				st.Mtim != before[i].Mtim, st.Ctim != before[i].Ctim)
			w.must(unix.Close(fd))
		}
		w.must(os.RemoveAll(dir))
	}
}

// untilClockPasses waits for a tick of the clock of file systems' times.
func (w *witness) untilClockPasses(at unix.Timespec) {
	for {
		var clock unix.Timespec
		w.must(unix.ClockGettime(unix.CLOCK_REALTIME_COARSE, &clock))
		if clock.Nano() > at.Nano() {
			return
		}
		time.Sleep(time.Millisecond)
	}
}
