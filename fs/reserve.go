package fs

import (
	"cmp"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"vmcryptfs/fs/inode"
	"vmcryptfs/layout"
)

// A file system may hold space back for root (ext4: 5 % of it): for who has root's user id (fsuid)
// or CAP_SYS_RESOURCE. The daemon has both, and those for whom it writes have not. So near the end
// of what there is for all, what is written for a caller is written with the caller's identity, and
// the file system decides: that takes some 20 µs a request, and before that end nothing but a
// subtraction.

const (
	scarceBelow = 64 << 20    // bytes left for all, below which each request is a caller's own
	askedEach   = 4 << 20     // bytes after which the file system is asked again,
	askedAfter  = time.Second // or after this, for others write to it too
	oneBlock    = 4 << 10     // bytes of a change that may take a block
)

// reserve is what is known of the space of one file system that holds some back. The zero one
// asks at once; nil is a file system that does not. Safe for concurrent use.
type reserve struct {
	left  atomic.Int64 // bytes that may be written before it is asked again
	until atomic.Int64 // when that ends, in nanoseconds
}

// scarce tells if so many bytes could come from what the file system of fd holds back.
func (r *reserve) scarce(fd int, bytes int64) bool {
	if r == nil {
		return false
	}
	now := time.Now().UnixNano()
	// Callers choose bytes, up to what int64 holds: nothing so great is subtracted.
	if bytes <= askedEach && r.left.Add(-bytes) >= 0 && now < r.until.Load() {
		return false
	}
	var st unix.Statfs_t
	if err := unix.Fstatfs(fd, &st); err != nil {
		return true
	}
	room := left(&st) - scarceBelow
	if room < bytes {
		r.left.Store(0)
		return true
	}
	r.left.Store(min(room-bytes, askedEach))
	r.until.Store(now + int64(askedAfter))
	return false
}

// left is what a file system has left for who is not root, in bytes.
func left(st *unix.Statfs_t) int64 {
	return int64(st.Bavail) * cmp.Or(st.Frsize, st.Bsize) // FUSE and NFS have Bsize for the size of a request
}

// reserves are those of the file systems of a datastore, by their device.
type reserves struct {
	mu sync.Mutex // a leaf, held over statfs(2)
	of map[uint64]*reserve
}

// f2fsMagic is F2FS_SUPER_MAGIC.
const f2fsMagic = 0xF2F52010

// reserveOf is the one that the backing inode of n, fd, belongs to; nil where this process is no
// root whom anything is given.
func (f *FS) reserveOf(n *inode.Inode, fd int) *reserve {
	if !f.daemon.mayBecome {
		return nil
	}
	dev := n.Key().Dev
	f.reserves.mu.Lock()
	defer f.reserves.mu.Unlock()
	r, known := f.reserves.of[dev]
	if known {
		return r
	}
	var st unix.Statfs_t
	if err := unix.Fstatfs(fd, &st); err != nil || st.Type == unix.EXT4_SUPER_MAGIC || st.Type == f2fsMagic {
		r = new(reserve)
	}
	if f.reserves.of == nil {
		f.reserves.of = make(map[uint64]*reserve)
	}
	f.reserves.of[dev] = r
	return r
}

// charge makes a change of so many bytes in the file system of n's backing inode, fd, for by.
func (f *FS) charge(n *inode.Inode, fd int, by fuse.Caller, bytes int64, call func() error) error {
	if !f.reserveOf(n, fd).scarce(fd, bytes) {
		return call()
	}
	return f.daemon.asCaller(by, call)
}

// chargeOwner is charge of a change of form for the owner of n, who mostly is the caller. n.mu is
// held, and n.
func (f *FS) chargeOwner(n *node, call func() error) error {
	return f.charge(&n.Inode, n.FD(), fuse.Caller{Owner: ownerOf(n.FD())}, maxConvert+layout.DataOffset, call)
}

// ownerOf is that of a backing inode; nobody if that cannot be found.
func ownerOf(fd int) fuse.Owner {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nobody()
	}
	return fuse.Owner{Uid: st.Uid, Gid: st.Gid}
}

// nobody is the user and the group that nothing is held back for.
func nobody() fuse.Owner { return fuse.Owner{Uid: 65534, Gid: 65534} }

// asCaller is call with the identity of by: what the file system holds back is had by whom it
// would give it without us. (Who writes a mapping's pages back is not known: pid 0.)
func (d *daemon) asCaller(by fuse.Caller, call func() error) error {
	caps := d.caps
	if mayPassLimits(by.Pid) {
		caps[0].Effective |= caps[0].Permitted & passesLimits
	}
	made := make(chan error, 1)
	go func() { made <- d.callAs(by.Owner, caps, call) }()
	return <-made
}

// passesLimits is the capability for which ext4 and f2fs give what they hold back, and for which
// a quota is none. The first is for those who have it; the daemon holds all to quotas.
const passesLimits = 1 << unix.CAP_SYS_RESOURCE

// mayPassLimits tells if a process has CAP_SYS_RESOURCE; not if that cannot be found. In a user
// namespace of its own anybody has it, and it counts for nothing.
func mayPassLimits(pid uint32) bool {
	if pid == 0 {
		return false
	}
	proc := "/proc/" + strconv.FormatUint(uint64(pid), 10)
	status, err := os.ReadFile(proc + "/status")
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(status)) {
		if set, ok := strings.CutPrefix(line, "CapEff:"); ok {
			caps, err := strconv.ParseUint(strings.TrimSpace(set), 16, 64)
			return err == nil && caps&passesLimits != 0 && inOurUserNamespace(proc)
		}
	}
	return false
}

func inOurUserNamespace(proc string) bool {
	ours, err := os.Stat("/proc/self/ns/user")
	if err != nil {
		return false
	}
	theirs, err := os.Stat(proc + "/ns/user")
	return err == nil && os.SameFile(ours, theirs)
}
