package powerloss

import (
	"math/rand/v2"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"vmcryptfs/fs/cryptfile"
	"vmcryptfs/fs/cryptfile/faultfile"
)

// Options of a file system; the zero value is the strictest one that keeps its promises.
type Options struct {
	// Journal: any sync brings all names to disk. Otherwise only a sync of the names' directory
	// does.
	Journal bool
	// NoTmpfile: no files without a name (O_TMPFILE), as on NFS.
	NoTmpfile bool
	// Lies: syncs are answered, and not done.
	Lies bool
}

// Disk is the file system with its content. Safe for concurrent use.
type Disk struct {
	options Options

	mu      sync.Mutex // guards all below, and makes each request one step
	off     bool
	content *faultfile.Disk
	names   *namespace
	inodes  map[uint64]*inode
	last    uint64
	fault   func(op Op, name string) unix.Errno
}

// inode is a file or directory. The number is the kernel's node id.
type inode struct {
	kind, mode, uid, gid uint32
	atime, mtime, ctime  time.Time
	file                 *faultfile.File // of a regular file
	name                 string          // the last name given, for faults
	syncs                Syncs
}

const root = 1

// New returns an empty file system.
func New(o Options) *Disk {
	d := &Disk{options: o, content: faultfile.New(), inodes: map[uint64]*inode{}, last: root}
	d.content.Record()
	d.names = newNamespace(names{root: {}})
	d.inodes[root] = newInode(unix.S_IFDIR, 0o755)
	return d
}

func newInode(kind, mode uint32) *inode {
	now := time.Now()
	return &inode{kind: kind, mode: mode, atime: now, mtime: now, ctime: now}
}

// Off cuts the power: from here on every request is EIO, and nothing changes any more.
func (d *Disk) Off() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.off = true
}

// IsOff reports whether the power was cut: an answer given to a caller since does not count as an
// answer. (ext4 may answer an fsync with success after its disk has gone.)
func (d *Disk) IsOff() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.off
}

// Cut returns a file system as a power loss now may leave one, another for each seed, with
// everything left durable. d continues, unless Off.
func (d *Disk) Cut(seed uint64) *Disk {
	d.mu.Lock()
	defer d.mu.Unlock()
	rng := rand.New(rand.NewPCG(seed, 0))
	left := &Disk{options: d.options, content: d.content.Cut(rng), inodes: map[uint64]*inode{}, last: d.last}
	left.names = newNamespace(d.names.cut(rng))
	links := map[uint64]uint32{root: 1}
	left.names.now.links(root, links)
	for ino := range links {
		i := *d.inodes[ino]
		if i.syncs = (Syncs{}); i.file != nil {
			i.file = left.content.File(i.file.Number())
		}
		left.inodes[ino] = &i
	}
	return left
}

// SetOptions changes the options; for a disk that begins to lie.
func (d *Disk) SetOptions(o Options) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.options = o
}

// Op is a kind of request, for faults.
type Op string

// The requests passed to SetFault's function.
const (
	Create    Op = "create" // mkdir and link as well
	Rename    Op = "rename"
	Unlink    Op = "unlink" // rmdir as well
	Read      Op = "read"
	Write     Op = "write"
	Truncate  Op = "truncate"
	Fallocate Op = "fallocate"
	Fsync     Op = "fsync"
	FsyncDir  Op = "fsyncdir"
)

// SetFault makes the disk call fault before each request, with the last name of the file or
// directory (of a new one: the new name). fault refuses the request with an errno or lets the
// request pass with 0. A nil fault ends that.
func (d *Disk) SetFault(fault func(op Op, name string) unix.Errno) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fault = fault
}

// Syncs counts a file's or directory's requests for durability.
type Syncs struct {
	Fsync, Fdatasync         int
	DsyncWrites, FsyncWrites int // writes with RWF_DSYNC or RWF_SYNC, or through such a descriptor
	PlainWrites              int
}

// Syncs returns the counts of the file at path, one element; "" is the root.
func (d *Disk) Syncs(path string) Syncs {
	d.mu.Lock()
	defer d.mu.Unlock()
	if path == "" {
		return d.inodes[root].syncs
	}
	if i := d.inodes[d.names.now[root][path]]; i != nil {
		return i.syncs
	}
	return Syncs{}
}

// sync makes the content of i durable. A file without any has nothing to sync.
func (d *Disk) sync(i *inode) error {
	if d.options.Lies {
		return nil
	}
	if d.options.Journal {
		d.names.syncAll()
	}
	if i.file == nil {
		return nil
	}
	return i.file.Sync(cryptfile.Full)
}

// durability returns the durability of a write with the flags.
func (d *Disk) durability(flags uint32) cryptfile.Durability {
	switch {
	case d.options.Lies, flags&unix.O_DSYNC == 0:
		return cryptfile.Volatile
	case flags&unix.O_SYNC == unix.O_SYNC:
		return cryptfile.Full
	default:
		return cryptfile.Data
	}
}
