package cryptfile

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"vmcryptfs/cryptoblk"
	"vmcryptfs/fs/rangelock"
	"vmcryptfs/keys"
	"vmcryptfs/layout"
)

// ErrLength is the warning about a file whose stored length is never left behind by this package.
var ErrLength = errors.New("stored length decodes to no size; taken as empty")

// File is an open encrypted file. Safe for concurrent use: operations on disjoint data units run
// in parallel.
type File struct {
	// backing is reached through store alone, under a hold on the units concerned: code that
	// replaces backing, or splits the file over two backing files, takes holds too.
	backing Backing
	cipher  *cryptoblk.Cipher // immutable until Close
	dek     *keys.DEK         // for header updates while the file is open; wiped by Close

	locks rangelock.Lock
	// size is the logical size in bytes. size changes only under an exclusive hold on all units
	// from the unit of the lesser of the old and the new size on. So under a hold on a range,
	// size is stable as far as the range is concerned.
	size atomic.Int64
	// tailClean reports that padding and spill are zero and synced. A size of whole units has no
	// tail, and tailClean means nothing. Like size, tailClean is guarded by a hold without end.
	tailClean bool
	// tailDoubt reports that a cleaning failed: bytes read as zero may be zero in the page cache
	// alone, and after a refused sync the cache has nothing left to store.
	tailDoubt bool
	// stored says how the stored length relates to size. stored changes under a hold without end.
	stored atomic.Uint32

	bounce   sync.Pool // of *[bounceSize]byte
	schedule *keys.Secret
	warning  error // immutable after Open

	ending sync.RWMutex // shared by operations with no hold; taken before locks
	closed atomic.Bool  // set with ending taken and a hold on everything
}

// Values of File.stored about the length of the backing file.
const (
	agreed uint32 = iota // decodes to size
	ill                  // as found by Open: decodes to no size; left so until a write
	stray                // left by a failed change that could not be taken back
)

// Open takes over b and dek, also on error: Close closes b and wipes dek. The caller has read the
// header and proven dek by the header: Open looks at the length alone. layout.ErrDamaged: b is
// shorter than a header.
func Open(b Backing, dek *keys.DEK) (*File, error) {
	f, err := open(b, dek)
	if err != nil {
		dek.Wipe()
		b.Close() // the error above tells more
		return nil, err
	}
	return f, nil
}

func open(b Backing, dek *keys.DEK) (*File, error) {
	stored, err := b.Size()
	if err != nil {
		return nil, fmt.Errorf("size of backing file: %w", err)
	}
	if stored < layout.DataOffset {
		return nil, fmt.Errorf("%w: backing file of %d bytes ends inside its header", layout.ErrDamaged, stored)
	}
	schedule, err := keys.NewSecret(cryptoblk.ScheduleSize)
	if err != nil {
		return nil, err
	}
	cipher, err := cryptoblk.New(dek.Bytes(), schedule.Bytes())
	if err != nil {
		schedule.Wipe()
		return nil, err
	}
	f := &File{backing: b, cipher: cipher, dek: dek, schedule: schedule}
	f.bounce.New = func() any { return new([bounceSize]byte) }
	n, ok := layout.LogicalLen(stored - layout.DataOffset)
	if !ok {
		f.warning = fmt.Errorf("%w: %d bytes after the header", ErrLength, stored-layout.DataOffset)
		f.stored.Store(ill)
	}
	f.size.Store(n)
	return f, nil
}

// Size is the logical size in bytes.
func (f *File) Size() int64 { return f.size.Load() }

// Warning returns ErrLength, wrapped with the length, when the file was opened with a length that
// no crash of this program leaves; else nil. Such a file is served as empty.
func (f *File) Warning() error { return f.warning }

// NothingToUndo reports whether no failed change is left to be taken back: Sync and Close then write
// nothing.
func (f *File) NothingToUndo() bool { return f.stored.Load() != stray }

// Sync makes all answered changes durable.
func (f *File) Sync(d Durability) error {
	if f.stored.Load() == stray {
		if err := f.mendTail(); err != nil {
			return fmt.Errorf("sync: %w", err)
		}
	}
	f.ending.RLock()
	defer f.ending.RUnlock()
	if f.closed.Load() {
		return os.ErrClosed
	}
	if d == Volatile {
		return nil
	}
	if err := f.store().Sync(d); err != nil {
		return fmt.Errorf("sync: %w", err)
	}
	return nil
}

// Close waits for operations under way, wipes the key and closes the backing file; idempotent.
// Later operations give os.ErrClosed.
func (f *File) Close() error {
	f.ending.Lock()
	defer f.ending.Unlock()
	h := f.locks.Acquire(0, rangelock.NoUnit, false)
	defer f.locks.Release(h)
	if f.closed.Swap(true) {
		return nil
	}
	var err error
	if f.stored.Load() == stray {
		err = f.mendLength()
	}
	f.cipher.Wipe()
	f.schedule.Wipe()
	f.dek.Wipe()
	return errors.Join(err, f.backing.Close())
}

// store returns the backing file of the units under the caller's hold.
func (f *File) store() Backing { return f.backing }

// lock waits for the units touched by [off, end).
func (f *File) lock(off, end int64, shared bool) (*rangelock.Hold, error) {
	return f.lockUnits(off/layout.UnitSize, ceil(end)/layout.UnitSize, shared)
}

func (f *File) lockUnits(from, to int64, shared bool) (*rangelock.Hold, error) {
	h := f.locks.Acquire(from, to, shared)
	if f.closed.Load() {
		f.locks.Release(h)
		return nil, os.ErrClosed
	}
	return h, nil
}

// lockTail waits for all units from the unit of off or of the end of the file, whichever comes
// first. Under such a hold the size may change to off or more.
func (f *File) lockTail(off int64) (*rangelock.Hold, error) {
	from := min(off, f.size.Load())
	h, err := f.lockUnits(from/layout.UnitSize, rangelock.NoUnit, false)
	if err != nil || from/layout.UnitSize <= f.size.Load()/layout.UnitSize {
		return h, err
	}
	// The file shrank meanwhile. Once is enough: unit 0 is before every size.
	f.locks.Release(h)
	return f.lockUnits(0, rangelock.NoUnit, false)
}

// lockWrite waits for the units touched by a change of [off, end), and for the end of the file if
// the end will move.
func (f *File) lockWrite(off, end int64) (*rangelock.Hold, error) {
	if end <= f.size.Load() {
		h, err := f.lock(off, end, false)
		if err != nil || end <= f.size.Load() {
			return h, err
		}
		f.locks.Release(h)
	}
	return f.lockTail(off)
}

// extent checks a range of n bytes at off, to be written or reserved, and returns the range's
// end: EINVAL or EFBIG.
func extent(off, n int64) (end int64, err error) {
	switch {
	case off < 0 || n < 0:
		return 0, unix.EINVAL
	case n > layout.MaxLogical || off > layout.MaxLogical-n:
		return 0, unix.EFBIG
	}
	return off + n, nil
}

// floor and ceil are the boundaries of data units next to n.
func floor(n int64) int64 { return n - n%layout.UnitSize }

func ceil(n int64) int64 { return floor(n + layout.UnitSize - 1) }

// aligned reports whether n is a boundary of data units.
func aligned(n int64) bool { return n%layout.UnitSize == 0 }
