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

// A file system may hold space back for root (ext4: 5 % of the whole): for processes with root's
// user id (fsuid) or CAP_SYS_RESOURCE. The daemon has both; most callers have neither. So when the
// space for all is nearly used, writes for a caller are made with the caller's identity, and the
// file system decides. Such a write takes some 20 µs longer; before that, a write costs a
// subtraction.

const (
	scarceBelow = 64 << 20    // bytes left for all, below which each request is made with the caller's identity
	askedEach   = 4 << 20     // bytes after which the file system is asked again,
	askedAfter  = time.Second // or after this time, for others write there too
	oneBlock    = 4 << 10     // bytes of a change that may take a block
)

// reserve is the knowledge of the space of one file system that holds space back. The zero reserve
// asks the file system at once; nil stands for a file system that holds nothing back. Safe for
// concurrent use.
type reserve struct {
	left  atomic.Int64 // bytes that may be written before the file system is asked again
	until atomic.Int64 // the end of left's validity, in nanoseconds since 1970
}

// scarce reports whether a change of so many bytes could use space that the file system of fd holds
// back.
func (r *reserve) scarce(fd int, bytes int64) bool {
	if r == nil {
		return false
	}
	now := time.Now().UnixNano()
	// Callers choose bytes, up to the greatest int64: great numbers are not subtracted.
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

// left is the space, in bytes, that a file system has left for all users.
func left(st *unix.Statfs_t) int64 {
	return int64(st.Bavail) * cmp.Or(st.Frsize, st.Bsize) // for FUSE and NFS, Bsize is the size of a request
}

// reserves are the reserves of a datastore's file systems, by device.
type reserves struct {
	mu sync.Mutex // a leaf, held over statfs(2)
	of map[uint64]*reserve
}

// f2fsMagic is F2FS_SUPER_MAGIC.
const f2fsMagic = 0xF2F52010

// reserveOf is the reserve of the file system of n's backing inode, fd. nil: the file system holds
// nothing back; or this process is without root's rights, and gets nothing of the reserve itself.
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

// chargeOwner is charge of a change of form, for the owner of n, mostly the caller. n is pinned, and
// n.Mu.
func (f *FS) chargeOwner(n *node, call func() error) error {
	return f.charge(&n.Inode, n.FD(), fuse.Caller{Owner: ownerOf(n.FD())}, maxConvert+layout.DataOffset, call)
}

// ownerOf is the owner of a backing inode; nobody after an error.
func ownerOf(fd int) fuse.Owner {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nobody()
	}
	return fuse.Owner{Uid: st.Uid, Gid: st.Gid}
}

// nobody is a user and a group for which no space is held back.
func nobody() fuse.Owner { return fuse.Owner{Uid: 65534, Gid: 65534} }

// asCaller makes call with the identity of by: the file system gives reserved space to the same
// callers as without us. (The writer of a mapping's pages is unknown: pid 0.)
func (d *daemon) asCaller(by fuse.Caller, call func() error) error {
	caps := d.caps
	if mayPassLimits(by.Pid) {
		caps[0].Effective |= caps[0].Permitted & passesLimits
	}
	made := make(chan error, 1)
	go func() { made <- d.callAs(by.Owner, caps, call) }()
	return <-made
}

// passesLimits is the capability for reserved space on ext4 and f2fs, and for freedom from quotas.
// Callers with the capability get reserved space; the daemon holds all to quotas.
const passesLimits = 1 << unix.CAP_SYS_RESOURCE

// mayPassLimits reports whether a process has CAP_SYS_RESOURCE; after an error, false. The
// capability counts in our user namespace alone, for in a namespace of its own any process has it.
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
