package fs

import (
	"errors"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"vmcryptfs/fs/backing"
	"vmcryptfs/fs/cryptfile"
	"vmcryptfs/layout"
)

// content is an open file as the caller sees it: a *cryptfile.File or a *clearFile. Its
// methods are those of cryptfile.File; WriteAt may leave anything in p.
type content interface {
	ReadAt(p []byte, off int64) (int, error)
	PeekAt(p []byte, off int64) (int, error)
	WriteAt(p []byte, off int64, d cryptfile.Durability) (int, error)
	Truncate(size int64) error
	Sync(d cryptfile.Durability) error
	Punch(off, n int64) error
	Zero(off, n int64, keepSize bool) error
	Allocate(off, n int64, keepSize bool) error
	Seek(off int64, whence int) (int64, error)
	Close() error
}

// openFile is the open backing file of a node, shared by its handles. content and backing
// are immutable; form, can and torn are guarded by node.mu. A cleartext file's form follows
// the class of its name.
type openFile struct {
	content
	backing *cryptfile.OSFile // content's own, for what is no business of content
	form    backing.Form
	can     intent   // what backing's descriptor can do
	reserve *reserve // of backing's file system; immutable once it is a node's
	// opens counts holders. With node.mu shared it goes up from 1 and down to 1; opening
	// and closing take node.mu exclusively.
	opens atomic.Int64
	// writers are those of them who may write. The last one goes with node.mu held exclusively.
	writers atomic.Int64
	// directs are the handles opened O_DIRECT among them.
	directs atomic.Int64
	// torn: the header slots differed at open. They are made the same before the first
	// write.
	torn bool
}

// hold adds a holder if there is one.
func (o *openFile) hold(write bool) bool {
	for {
		n := o.opens.Load()
		if n < 1 {
			return false
		}
		if o.opens.CompareAndSwap(n, n+1) {
			break
		}
	}
	if write {
		o.writers.Add(1)
	}
	return true
}

// letGo takes a holder away, unless it is the last, or the last of those who write. (These
// are counted among the holders as long as they are counted among the writers.)
func (o *openFile) letGo(write bool) bool {
	return (!write || takeOne(&o.writers)) && takeOne(&o.opens)
}

// takeOne takes one from a count unless it is the last.
func takeOne(count *atomic.Int64) bool {
	for {
		n := count.Load()
		if n <= 1 {
			return false
		}
		if count.CompareAndSwap(n, n-1) {
			return true
		}
	}
}

// inherit makes the holders of old, which o takes the place of, o's. node.mu is held
// exclusively.
func (o *openFile) inherit(old *openFile) {
	o.opens.Add(old.opens.Load())
	o.writers.Add(old.writers.Load())
	o.wantDirect(old.directs.Load())
	o.backing.InheritFailure(old.backing)
}

// wantDirect counts handles opened O_DIRECT: as long as there are any, what BACKING
// permits goes around its page cache.
func (o *openFile) wantDirect(change int64) {
	if change != 0 {
		o.directs.Add(change)
		o.backing.UseDirect(int(change))
	}
}

// wantDirect is that of n's open file, for a handle.
func (n *node) wantDirect(direct bool, change int64) {
	if !direct {
		return
	}
	n.Mu.RLock()
	defer n.Mu.RUnlock()
	if n.file != nil {
		n.file.wantDirect(change)
	}
}

// syncFailure is that of n's open file.
func (n *node) syncFailure() *cryptfile.SyncFailure {
	n.Mu.RLock()
	defer n.Mu.RUnlock()
	if n.file == nil {
		return nil
	}
	return n.file.backing.SyncFailure()
}

// serves tells if the file as it is open will do.
func (o *openFile) serves(want intent) bool {
	return o.adaptable(want) && o.can.covers(want) && !(want.write && o.torn)
}

// adaptable tells if it will do with another descriptor: its form is that of who wants it.
func (o *openFile) adaptable(want intent) bool {
	return !want.write || o.form == backing.Encrypted || o.form.IsClear()
}

// size is the logical size in bytes.
func (o *openFile) size() (int64, error) {
	if f, ok := o.content.(*cryptfile.File); ok {
		return f.Size(), nil
	}
	return o.backing.Size()
}

// clearFile is a cleartext file, or one that has no form yet and is only read.
type clearFile struct {
	*cryptfile.OSFile
	// head: one write at a time to where the magic of an encrypted file would stand.
	head sync.Mutex
}

const magicLen = int64(len(layout.Magic))

// WriteAt writes, but EPERM if the file would then look encrypted.
func (c *clearFile) WriteAt(p []byte, off int64, d cryptfile.Durability) (int, error) {
	if !mayMakeMagic(p, off) {
		return c.OSFile.WriteAt(p, off, d)
	}
	c.head.Lock()
	defer c.head.Unlock()
	var head [magicLen]byte
	n, err := c.OSFile.PeekAt(head[:], 0)
	if errors.Is(err, unix.EBADF) { // open for writing alone: what would stand there is not known
		return 0, unix.EPERM
	}
	if err != nil {
		return 0, err
	}
	n = max(n, int(off)+copy(head[off:], p))
	if layout.HasMagic(head[:n]) {
		return 0, unix.EPERM
	}
	return c.OSFile.WriteAt(p, off, d)
}

// mayMakeMagic tells if a file may begin with the magic of an encrypted one when p is written
// at off.
func mayMakeMagic(p []byte, off int64) bool {
	if off >= magicLen || len(p) == 0 {
		return false
	}
	part := layout.Magic[off:]
	part = part[:min(len(part), len(p))]
	return string(p[:len(part)]) == part
}

func (c *clearFile) Punch(off, n int64) error {
	return c.Fallocate(unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n)
}

func (c *clearFile) Zero(off, n int64, keepSize bool) error {
	return c.Fallocate(unix.FALLOC_FL_ZERO_RANGE|keep(keepSize), off, n)
}

func (c *clearFile) Allocate(off, n int64, keepSize bool) error {
	return c.Fallocate(keep(keepSize), off, n)
}

func keep(size bool) uint32 {
	if size {
		return unix.FALLOC_FL_KEEP_SIZE
	}
	return 0
}

var (
	_ content = (*clearFile)(nil)
	_ content = (*cryptfile.File)(nil)
)

// readAll reads a short file whole, for ourselves.
func readAll(c content, size int64) ([]byte, error) {
	p := make([]byte, size)
	n, err := c.PeekAt(p, 0)
	return p[:n], err
}
