package exact

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"vmcryptfs/integration/mounttest"
	"vmcryptfs/integration/tally"
)

// locker is a process for locks on files: "KIND TYPE FILE START LENGTH" and "close FILE".
type locker struct{ fds map[string]int }

func newLocker() *locker { return &locker{map[string]int{}} }

func (l *locker) obey(order []string) string {
	if order[0] == "close" {
		err := unix.Close(l.fds[order[1]])
		delete(l.fds, order[1])
		return errnoName(err)
	}
	kind, how, path := order[0], order[1], order[2]
	fd, ok := l.fds[path]
	if !ok {
		var err error
		if fd, err = mounttest.Open(path, unix.O_RDWR, 0); err != nil {
			return errnoName(err)
		}
		l.fds[path] = fd
	}
	if kind == "flock" {
		flags := map[string]int{"read": unix.LOCK_SH | unix.LOCK_NB, "write": unix.LOCK_EX | unix.LOCK_NB, "unlock": unix.LOCK_UN, "wait": unix.LOCK_EX}[how]
		return errnoName(mounttest.Uninterrupted(func() error { return unix.Flock(fd, flags) }))
	}
	start, _ := strconv.ParseInt(order[3], 10, 64)
	length, _ := strconv.ParseInt(order[4], 10, 64)
	lock := unix.Flock_t{Type: map[string]int16{"read": unix.F_RDLCK, "unlock": unix.F_UNLCK}[how], Start: start, Len: length}
	if how == "write" || how == "wait" || how == "ask" {
		lock.Type = unix.F_WRLCK
	}
	set, wait, get := unix.F_SETLK, unix.F_SETLKW, unix.F_GETLK
	if kind == "ofd" {
		set, wait, get = unix.F_OFD_SETLK, unix.F_OFD_SETLKW, unix.F_OFD_GETLK
	}
	cmd := map[string]int{"wait": wait, "ask": get}[how]
	if cmd == 0 {
		cmd = set
	}
	if err := mounttest.Uninterrupted(func() error { return unix.FcntlFlock(uintptr(fd), cmd, &lock) }); err != nil || how != "ask" {
		return errnoName(err)
	}
	if lock.Type == unix.F_UNLCK {
		return "free"
	}
	return fmt.Sprintf("%d+%d by-process-%v", lock.Start, lock.Len, lock.Pid > 0)
}

// lockStep is an order to the first or second process, with the answer.
type lockStep struct {
	who         int
	order, want string
}

// lockCases: F is the file. A step with the answer "waits" answers after the next step.
var lockCases = map[string][]lockStep{
	"posix": {
		{0, "posix write F 100 50", "ok"}, {1, "posix write F 149 1", "EAGAIN"}, {1, "posix read F 90 11", "EAGAIN"},
		{1, "posix write F 150 0", "ok"}, {1, "posix ask F 0 120", "100+50 by-process-true"}, {1, "posix ask F 0 100", "free"},
		{0, "posix unlock F 110 10", "ok"}, {1, "posix write F 110 10", "ok"}, {0, "posix write F 0 0", "EAGAIN"},
		{0, "posix read F 100 5", "ok"}, {1, "posix read F 100 5", "ok"}, {1, "posix write F 100 5", "EAGAIN"},
		{1, "posix wait F 105 1", "waits"}, {0, "posix unlock F 0 0", "ok"}, {1, "close F", "ok"}, {0, "posix write F 0 0", "ok"},
	},
	"posix close": {
		{0, "posix write F 0 0", "ok"}, {1, "posix wait F 0 0", "waits"}, {0, "close F", "ok"}, {1, "posix write F 5 5", "ok"},
	},
	"ofd": {
		{0, "ofd write F 200 1", "ok"}, {1, "ofd write F 200 1", "EAGAIN"}, {1, "ofd read F 201 1", "ok"},
		{1, "ofd ask F 0 0", "200+1 by-process-false"}, {1, "posix read F 200 1", "EAGAIN"}, {1, "ofd wait F 200 1", "waits"},
		{0, "ofd unlock F 0 0", "ok"}, {0, "ofd read F 200 1", "EAGAIN"},
	},
	"ofd close": {{0, "ofd write F 0 0", "ok"}, {1, "ofd wait F 0 0", "waits"}, {0, "close F", "ok"}, {1, "ofd write F 0 0", "ok"}},
	"flock": {
		{0, "flock read F", "ok"}, {1, "flock read F", "ok"}, {1, "flock write F", "EAGAIN"}, {0, "posix write F 0 0", "ok"},
		{1, "flock unlock F", "ok"}, {0, "flock write F", "ok"}, {1, "flock read F", "EAGAIN"}, {1, "flock wait F", "waits"},
		{0, "flock unlock F", "ok"}, {0, "flock read F", "EAGAIN"}, {1, "close F", "ok"}, {0, "flock write F", "ok"},
	},
	"flock close": {{0, "flock write F", "ok"}, {1, "flock wait F", "waits"}, {0, "close F", "ok"}, {1, "flock write F", "ok"}},
}

// TestLocks makes two processes lock one file, on the mount and in a plain directory, and then
// ends a process with a lock.
func TestLocks(t *testing.T) {
	t.Parallel()
	o := newOracle(t)
	for name, steps := range lockCases {
		for at, path := range map[string]string{"mount.img": o.d.Path(name + ".img"), "mount.log": o.d.Path(name + ".log"), "plain": o.plain + "/" + name} {
			t.Run(name+" "+at, func(t *testing.T) {
				t.Parallel()
				path := strings.ReplaceAll(path, " ", "-") // orders are words
				(&witness{t: t}).create(path, "content", 0o644)
				lockers := []*child{startChild(t, "locker"), startChild(t, "locker")}
				playLocks(t, lockers, path, steps)
				// The end of a process releases its locks, and wakes waiting processes.
				kind := strings.Fields(name)[0]
				fresh := startChild(t, "locker")
				lockers[1].kill()
				lockers[0].want("ok", "%s wait %s 0 0", kind, path)
				fresh.want("EAGAIN", "%s write %s 0 0", kind, path)
				fresh.tell("%s wait %s 0 0", kind, path)
				lockers[0].kill()
				if got := fresh.answer(); got != "ok" {
					t.Errorf("after the holder's end: %s", got)
				}
				tally.Add(t, "operations compared", len(steps)+4)
			})
		}
	}
}

func playLocks(t *testing.T, lockers []*child, path string, steps []lockStep) {
	waits := -1
	for _, s := range steps {
		order := strings.ReplaceAll(s.order, " F", " "+path)
		if s.want == "waits" {
			lockers[s.who].tell("%s", order)
			waits = s.who
			continue
		}
		lockers[s.who].want(s.want, "%s", order)
		if waits >= 0 {
			if got := lockers[waits].answer(); got != "ok" {
				t.Errorf("the lock waited for: %s", got)
			}
			waits = -1
		}
	}
}

// TestQemuLocks: QEMU locks bytes from 100 and from 200 on of its images. The locks refuse a
// second machine for writing, and allow a reader (-U).
func TestQemuLocks(t *testing.T) {
	t.Parallel()
	d := mounttest.New(t)
	for _, format := range []string{"raw", "qcow2", "vmdk"} {
		t.Run(format, func(t *testing.T) {
			t.Parallel()
			image := d.Path("disk." + format)
			mounttest.Tool(t, "qemu-img", "create", "-q", "-f", format, image, "4M")
			machine := []string{"qemu-system-x86_64", "-S", "-nodefaults", "-display", "none", "-accel", "tcg", "-monitor", "stdio",
				"-drive", "if=virtio,cache=none,format=" + format + ",file=" + image}
			first := startTool(t, machine...)
			first.tell("info block")
			first.await(image)
			second := mounttest.Run(t, nil, machine...)
			writer := mounttest.Run(t, nil, "qemu-io", "-f", format, "-c", "write 0 64k", image)
			info := mounttest.Run(t, nil, "qemu-img", "info", image)
			for _, r := range []mounttest.Result{second, writer, info} {
				if r.Argv[0] == "qemu-img" && format == "raw" {
					continue // has nothing to be protected: not refused on any file system
				}
				if r.Code == 0 || !strings.Contains(r.Stderr, "lock") {
					t.Errorf("beside a running machine: %v", r)
				}
			}
			if out := mounttest.Tool(t, "qemu-img", "info", "-U", image); !strings.Contains(out, "virtual size: 4 MiB") {
				t.Errorf("info -U: %s", out)
			}
			beside := newLocker()
			for _, from := range []string{"100", "200"} {
				if got := beside.obey([]string{"ofd", "ask", image, from, "10"}); !strings.HasSuffix(got, "by-process-false") {
					t.Errorf("locks from byte %s on: %s", from, got)
				}
			}
			beside.obey([]string{"close", image})
			first.kill()
			mounttest.Tool(t, "qemu-io", "-f", format, "-c", "write 0 64k", image)
		})
	}
}
