package cryptfile

// Backing is a file of BACKING. The methods are those of a plain file descriptor, may be called
// concurrently, and return unwrapped errnos. Tests substitute backings that record, fail or
// forget.
type Backing interface {
	// ReadAt is pread until p is full or the file ends (then n < len(p), err nil).
	ReadAt(p []byte, off int64) (n int, err error)
	// WriteAt is pwrite, repeated until all of p is written; sync is RWF_DSYNC, or stronger. With
	// an error, n bytes of p were written before the error.
	WriteAt(p []byte, off int64, sync Durability) (n int, err error)
	Truncate(size int64) error
	// Sync is fdatasync or fsync; never called with Volatile.
	Sync(d Durability) error
	// Fallocate is fallocate(2) with FALLOC_FL_* mode.
	Fallocate(mode uint32, off, n int64) error
	// Seek is lseek(2) with SEEK_DATA or SEEK_HOLE.
	Seek(off int64, whence int) (int64, error)
	// Size is st_size.
	Size() (int64, error)
	Close() error
}

// Peeker is a Backing with reads that leave no access time: a read by the program itself, or for
// a write, is no access.
type Peeker interface {
	PeekAt(p []byte, off int64) (n int, err error)
}

// PeekAt is b's, or where b has none, ReadAt.
func PeekAt(b Backing, p []byte, off int64) (n int, err error) {
	if q, ok := b.(Peeker); ok {
		return q.PeekAt(p, off)
	}
	return b.ReadAt(p, off)
}

// Refresher is a Backing over a cache: Refresh makes later reads come from below the cache.
// Unsynced data stays cached. For a Backing without Refresh, reads return the stored data.
type Refresher interface {
	Refresh(off, n int64) error
}

// Durability is the event that a write or sync must outlive.
type Durability uint8

// Each includes the ones before.
const (
	Volatile Durability = iota // the page cache of BACKING
	Data                       // fdatasync, O_DSYNC
	Full                       // fsync, O_SYNC
)
