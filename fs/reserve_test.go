package fs

import (
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"vmcryptfs/layout"
)

// reserveRig is a datastore on ext4 that holds a fifth of its space back for root, and has a few
// MiB left for all. small is a file of the stranger's with its space; held is the number of bytes
// held back.
func reserveRig(t *testing.T) (r *rig, held int64) {
	r = newRigAt(t, sectorDisk(t, 512, "mkfs.ext4", "-q", "-m", "20"), nil)
	r.openToAll()
	wantErrno(t, "chmod", os.Chmod(r.backing, 0o777), 0)
	asStranger(t, func() { wantErrno(t, "write", os.WriteFile(r.path("small.img"), make([]byte, 64<<10), 0o600), 0) })
	run(t, "sync", "-f", r.backing)
	free, avail := space(t, r.mnt)
	run(t, "fallocate", "-l", fmt.Sprint(avail-6<<20), r.under("filler.log"))
	r.fs.reserves.mu.Lock()
	defer r.fs.reserves.mu.Unlock()
	for _, known := range r.fs.reserves.of { // what was known before that
		known.until.Store(0)
	}
	return r, free - avail
}

// space is the free space of a file system, and the part of it for all, in bytes.
func space(t *testing.T, path string) (free, avail int64) {
	t.Helper()
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		t.Fatal(err)
	}
	return int64(st.Bfree) * st.Bsize, int64(st.Bavail) * st.Bsize
}

// untilFull calls again and again until there is no space.
func untilFull(t *testing.T, call func(i int) error) {
	t.Helper()
	for i := range 4096 {
		if err := call(i); err != nil {
			wantErrno(t, "the last call", err, unix.ENOSPC)
			return
		}
	}
	t.Error("it never was full")
}

// fillUp writes until there is no block left for all.
func fillUp(t *testing.T, r *rig) {
	f := r.open("fill.log", os.O_RDWR|os.O_CREATE)
	end := int64(0)
	for _, size := range []int{256 << 10, 4 << 10} {
		untilFull(t, func(int) error {
			n, err := f.WriteAt(make([]byte, size), end)
			end += int64(n)
			return err
		})
	}
	wantErrno(t, "sync", f.Sync(), 0)
}

// longName is a name of which a few fill a directory's block.
func longName(i int) string { return fmt.Sprintf("%0200d.log", i) }

// TestReserve: space that a file system holds back for root is not given to others through the
// mount, however they take space, and df shows the space for all. Root gets the reserve.
func TestReserve(t *testing.T) {
	const slack = 1 << 20 // directories and extents
	write := func(name string, flags int) func(*rig) func(int) error {
		return func(r *rig) func(int) error {
			f := r.open(name, os.O_RDWR|os.O_CREATE|flags)
			return func(i int) error { _, err := f.WriteAt(aligned(256<<10), int64(i)<<18); return err }
		}
	}
	for what, take := range map[string]func(*rig) func(int) error{
		"write":        write("a.img", 0),
		"direct write": write("a.img", unix.O_DIRECT),
		"clear":        write("a.log", 0),
		"durable":      write("a.img", unix.O_DSYNC),
		"reservation": func(r *rig) func(int) error {
			f := r.open("a.img", os.O_RDWR|os.O_CREATE)
			return func(i int) error { return unix.Fallocate(int(f.Fd()), 0, int64(i)<<20, 1<<20) }
		},
		"write after a reservation of all": func(r *rig) func(int) error {
			big := r.open("big.img", os.O_RDWR|os.O_CREATE)
			call := write("a.img", 0)(r)
			return func(i int) error {
				if err := unix.Fallocate(int(big.Fd()), 0, 0, layout.MaxLogical); err == nil {
					return errors.New("all that a file can have was reserved")
				}
				return call(i)
			}
		},
		"links": func(r *rig) func(int) error {
			wantErrno(t, "write", os.WriteFile(r.path("f.log"), nil, 0o600), 0)
			fillUp(t, r)
			return func(i int) error { return os.Link(r.path("f.log"), r.path(longName(i))) }
		},
		"renames": func(r *rig) func(int) error {
			short := func(i int) string { return r.path(fmt.Sprint("short/", i, ".log")) }
			wantErrno(t, "mkdir", errors.Join(os.Mkdir(r.path("short"), 0o700), os.Mkdir(r.path("long"), 0o700)), 0)
			wantErrno(t, "write", os.WriteFile(short(0), nil, 0o600), 0)
			for i := range 400 {
				wantErrno(t, "link", os.Link(short(0), short(i+1)), 0)
			}
			fillUp(t, r)
			return func(i int) error { return os.Rename(short(i), r.path("long/"+longName(i))) }
		},
		"files": func(r *rig) func(int) error {
			return func(i int) error { return os.WriteFile(r.path(fmt.Sprint("f", i, ".img")), []byte("x"), 0o600) }
		},
		"conversions": func(r *rig) func(int) error {
			return func(i int) error {
				name := r.path(fmt.Sprint("f", i))
				return errors.Join(os.WriteFile(name+".log", make([]byte, 512<<10), 0o600), os.Rename(name+".log", name+".img"))
			}
		},
	} {
		t.Run(what, func(t *testing.T) {
			r, held := reserveRig(t)
			asStranger(t, func() { untilFull(t, take(r)) })
			run(t, "sync", "-f", r.backing)
			if free, avail := space(t, r.mnt); free < held-slack || avail > 2<<20 {
				t.Errorf("%d KiB of the %d held back are left, and %d for all", free>>10, held>>10, avail>>10)
			}
			asStranger(t, func() {
				wantErrno(t, "write in place", openFor(r.path("small.img"), os.O_WRONLY, func(f *os.File) error {
					_, err := f.WriteAt([]byte(strings.Repeat("x", 5000)), 100)
					return errors.Join(err, f.Sync())
				}), 0)
			})
			wantErrno(t, "root's write", os.WriteFile(r.path("root.img"), make([]byte, 4<<20), 0o600), 0)
			run(t, "sync", "-f", r.backing)
			if free, _ := space(t, r.mnt); free > held {
				t.Error("root had nothing of what is held back")
			}
		})
	}
}

// TestReserveIsAsked: the file system is asked after so many bytes or so much time that the space
// may be nearly used, and not before.
func TestReserveIsAsked(t *testing.T) {
	fd, err := unix.Open(t.TempDir(), unix.O_PATH, 0)
	wantErrno(t, "open", err, 0)
	defer unix.Close(fd)
	var none *reserve
	if none.scarce(-1, 1<<40) {
		t.Error("scarce where nothing is held back")
	}
	r := new(reserve)
	if r.scarce(fd, 1) || r.left.Load() == 0 {
		t.Error("scarce on a file system with much space, or not asked")
	}
	if !r.scarce(-1, askedEach+1) {
		t.Error("not asked after as much as was left")
	}
	r.scarce(fd, 1)
	if r.scarce(-1, 1) {
		t.Error("asked for each byte")
	}
	r.until.Store(0)
	if !r.scarce(-1, 1) {
		t.Error("not asked when it is time")
	}
	// Several callers at once, while the file system is asked.
	for range 4 {
		if !r.scarce(-1, math.MaxInt64) || r.left.Load() > askedEach {
			t.Errorf("%d bytes are left after more than there can be", r.left.Load())
		}
	}
	if !r.scarce(fd, math.MaxInt64) || r.left.Load() > askedEach {
		t.Errorf("more than there can be is had, %d bytes are left", r.left.Load())
	}
}

// TestPassLimits: CAP_SYS_RESOURCE, for which file systems give their reserve, counts in this
// process's user namespace: in a namespace of its own any process has it.
func TestPassLimits(t *testing.T) {
	own := capEff(t, "self")
	if got := mayPassLimits(uint32(os.Getpid())); got != (own&passesLimits != 0) {
		t.Errorf("this process, of %x: %v", own, got)
	}
	for what, pid := range map[string]uint32{"no process": 0, "a process that is gone": 1<<22 + 1} {
		if mayPassLimits(pid) {
			t.Errorf("%s may", what)
		}
	}
	c := exec.Command("sh", "-c", "echo; read end")
	c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}}
	in, err := c.StdinPipe()
	wantErrno(t, "stdin", err, 0)
	out, err := c.StdoutPipe()
	wantErrno(t, "stdout", err, 0)
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { in.Close(); _ = c.Wait() }()
	if _, err := out.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if theirs := capEff(t, fmt.Sprint(c.Process.Pid)); theirs&passesLimits == 0 {
		t.Fatalf("root of a user namespace has %x", theirs)
	}
	if mayPassLimits(uint32(c.Process.Pid)) {
		t.Error("root of another user namespace may")
	}
}

// capEff are the effective capabilities of a process.
func capEff(t *testing.T, pid string) (caps uint64) {
	t.Helper()
	status, err := os.ReadFile("/proc/" + pid + "/status")
	if err != nil {
		t.Fatal(err)
	}
	_, set, _ := strings.Cut(string(status), "CapEff:")
	if _, err := fmt.Sscanf(set, "%x", &caps); err != nil {
		t.Fatal(err)
	}
	return caps
}

// TestCapabilityOfCallers: a file for a caller is made without CAP_SYS_RESOURCE, unless the space
// is nearly used and the caller has the capability.
func TestCapabilityOfCallers(t *testing.T) {
	d, err := newDaemon()
	wantErrno(t, "look", err, 0)
	effective := func(has *bool) func() error {
		return func() error {
			var caps [2]unix.CapUserData
			err := unix.Capget(capHeader(), &caps[0])
			*has = caps[0].Effective&passesLimits != 0
			return err
		}
	}
	may := d.caps[0].Permitted&passesLimits != 0 && capEff(t, "self")&passesLimits != 0
	var has bool
	wantErrno(t, "made for the stranger", d.as(fuse.Owner{Uid: stranger, Gid: stranger}, effective(&has)), 0)
	if has {
		t.Error("made with it for the stranger")
	}
	for pid, want := range map[uint32]bool{0: false, uint32(os.Getpid()): may} {
		by := fuse.Caller{Owner: fuse.Owner{Uid: stranger, Gid: stranger}, Pid: pid}
		wantErrno(t, "written for a caller", d.asCaller(by, effective(&has)), 0)
		if has != want {
			t.Errorf("pid %d: written with it: %v, want %v", pid, has, want)
		}
	}
}

// Space is counted in fragments where there are any.
func TestLeft(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		st   unix.Statfs_t
		want int64
	}{
		{unix.Statfs_t{Bavail: 10, Bsize: 4096}, 10 << 12},
		{unix.Statfs_t{Bavail: 10, Bsize: 1 << 20, Frsize: 4096}, 10 << 12},
	} {
		if got := left(&c.st); got != c.want {
			t.Errorf("%+v: %d bytes left, want %d", c.st, got, c.want)
		}
	}
}
