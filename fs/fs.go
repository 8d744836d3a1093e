package fs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"vmcryptfs/fs/ability"
	"vmcryptfs/fs/backing"
	"vmcryptfs/fs/datastore"
	"vmcryptfs/fs/inode"
	"vmcryptfs/fs/move"
	"vmcryptfs/keys"
	"vmcryptfs/layout"
)

// Unencrypted is what happens to cleartext under a name whose class is encrypted.
type Unencrypted uint8

// Each of them refuses a file in which a well-formed header lies in slot B.
const (
	Deny  Unencrypted = iota // EACCES
	Read                     // served, EACCES to open it for writing
	Write                    // served, and written in clear
)

// Config of a filesystem. Store and Keys stay the caller's.
type Config struct {
	Store       *datastore.Store // open, exclusive, trusted
	Keys        *keys.Cache
	Unencrypted Unencrypted
	ReadOnly    bool
	Log         *slog.Logger // nil: no log
	// Seal seals what edit makes of the settings (datastore.Store.Edit). Nil: no directory with a
	// place below is renamed. Seal may wait for a key, and is called with no lock held that a request
	// about a file waits for.
	Seal func(ctx context.Context, edit func(*layout.Settings) error) error
}

// FS is a datastore served as a filesystem. Safe for concurrent use.
type FS struct {
	store       *datastore.Store
	keys        *keys.Cache
	unencrypted Unencrypted
	readOnly    atomic.Bool
	log         *slog.Logger
	seal        func(context.Context, func(*layout.Settings) error) error // Config.Seal
	temps       temporaries                                               // immutable
	daemon      daemon                                                    // immutable
	own         backing.Key                                               // the program's directory; immutable
	able        atomic.Pointer[ability.Report]                            // of BACKING's file system, as last tested
	reserves    reserves

	refuser   func(move.Dir) move.Dir // of a begin; nil: the directory itself; set before use
	crossings atomic.Uint64           // renames from one directory to another; counted with names held

	placing  chan struct{} // has one element while the paths of places change; see the package comment
	names    sync.RWMutex  // see the package comment
	table    inode.Table
	handles  handles
	sealed   atomic.Pointer[sealedRules] // nil until they are proven
	counts   counters
	told     told
	failures failures
	census   *backing.Counter

	notifier atomic.Pointer[Notifier] // of the transport; nil before its INIT
	copying  sync.Pool                // of *[copyBuffer]byte

	waiting  atomic.Int64   // direct writes, for pages
	dropping sync.WaitGroup // goroutines that drop pages
	mode     sync.Mutex     // guards sweep, and changes of readOnly
	sweep    sweep
	once     sync.Once // Close
}

// Notifier has the kernel drop the pages and attributes that it keeps of an inode. It is a
// fs/transport.Notifier.
type Notifier interface {
	InodeNotify(node uint64, off, length int64) fuse.Status
}

// Census counts the files of the datastore, until Close.
func (f *FS) Census() *backing.Counter { return f.census }

// SetNotifier gives f the way back to the kernel. A transport calls it before the first
// request.
func (f *FS) SetNotifier(n Notifier) { f.notifier.Store(&n) }

// New prepares the filesystem, and begins to remove the temporaries that a crash of this host left.
// Before New, the caller sets the process's umask to 0 and calls keys.HardenProcess. New raises the
// process's limit of open files as far as possible: for files that are open, and for inodes that the
// kernel knows.
func New(c Config) (*FS, error) {
	f := &FS{
		store:       c.Store,
		keys:        c.Keys,
		unencrypted: c.Unencrypted,
		log:         c.Log,
		seal:        c.Seal,
		placing:     make(chan struct{}, 1),
	}
	if f.log == nil {
		f.log = slog.New(slog.DiscardHandler)
	}
	f.readOnly.Store(c.ReadOnly)
	f.told.now = time.Now
	f.copying.New = func() any { return new([copyBuffer]byte) }
	if err := inode.RaiseDescriptors(); err != nil {
		f.log.Warn("the limit of open files stays", "error", err)
	}
	var err error
	if f.daemon, err = newDaemon(); err != nil {
		return nil, fmt.Errorf("serve %s: %w", c.Store.Path(), err)
	}
	if f.temps, err = newTemporaries(); err != nil {
		return nil, fmt.Errorf("serve %s: %w", c.Store.Path(), err)
	}
	f.able.Store(ability.Glance(c.Store.Fd()))
	if !c.ReadOnly { // else SetReadOnly finds out
		if err := f.learn(); err != nil {
			return nil, fmt.Errorf("serve %s: %w", c.Store.Path(), err)
		}
	}
	if err := f.openRoot(); err != nil {
		return nil, fmt.Errorf("serve %s: %w", c.Store.Path(), err)
	}
	if !c.ReadOnly {
		f.startSweep()
	}
	return f, nil
}

// openRoot enters BACKING itself as the node that the kernel knows without a lookup.
func (f *FS) openRoot() error {
	fd, err := unix.Openat(f.store.Fd(), ".", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return errors.Join(err, unix.Close(fd))
	}
	var own unix.Stat_t
	if err := unix.Fstatat(fd, datastore.Dir, &own, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return errors.Join(err, unix.Close(fd))
	}
	f.own = backing.KeyOf(&own)
	f.handles.open = make(map[uint64]*handle)
	f.table.ByPaths = f.byPaths()
	f.table.Harmless = f.isHarmless
	f.table.Init(fd, &st, newNode)
	f.census = backing.NewCounter(fd, f.verdictAt, f.isForeign)
	return nil
}

// Raw is the filesystem as FUSE operations, for fs/transport.
func (f *FS) Raw() fuse.RawFileSystem { return raw{f} }

// Close releases every inode after the transport has ended; idempotent.
func (f *FS) Close() error {
	var err error
	f.once.Do(func() {
		f.sweep.stop()
		f.dropping.Wait()
		err = errors.Join(f.handles.close(), f.table.Close())
	})
	return err
}
