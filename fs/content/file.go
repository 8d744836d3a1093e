package content

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"vmcryptfs/fs/backing"
	"vmcryptfs/fs/cryptfile"
)

// File is an open file, shared by its holders: handles, and operations that need the file open. The
// Content is immutable. Form and Can, and each field whose comment says so, are guarded by the Mu
// of the inode whose file the File is. A cleartext file's Form follows the class of its names.
type File struct {
	Content
	carrier *cryptfile.OSFile // the backing file that has the name
	Form    backing.Form
	Can     Intent // what the carrier's descriptor can do
	// opens counts holders. With Mu shared, opens goes up from 1 and down to 1; the first holder
	// comes, and the last one goes, with Mu held exclusively.
	opens atomic.Int64
	// writers counts the holders that may write. The last writer goes with Mu held exclusively.
	writers atomic.Int64
	// directs counts the handles opened O_DIRECT among the holders.
	directs atomic.Int64
	// torn: the header slots differed at open. Heal makes the slots the same before the first
	// write. Guarded by Mu.
	torn bool
}

// Share adds a holder, which may write or not, if there is one already; false otherwise. Mu is held
// shared.
func (f *File) Share(write bool) bool {
	for {
		n := f.opens.Load()
		if n < 1 {
			return false
		}
		if f.opens.CompareAndSwap(n, n+1) {
			break
		}
	}
	if write {
		f.writers.Add(1)
	}
	return true
}

// Quit takes a holder away. false: the holder is the last one, or the last writer, and Leave takes
// the holder away. (A writer is among the holders for as long as among the writers.) Mu is held
// shared.
func (f *File) Quit(write bool) bool {
	return (!write || takeOne(&f.writers)) && takeOne(&f.opens)
}

// takeOne takes one from count, unless count is at 1.
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

// Join adds a holder. Mu is held exclusively.
func (f *File) Join(write bool) {
	f.opens.Add(1)
	if write {
		f.writers.Add(1)
	}
}

// Leave takes a holder away, and reports whether none is left. Mu is held exclusively.
func (f *File) Leave(write bool) (last bool) {
	if write {
		f.writers.Add(-1)
	}
	return f.opens.Add(-1) <= 0
}

// HasWriters reports whether some holder may write.
func (f *File) HasWriters() bool { return f.writers.Load() > 0 }

// Inherit gives f the holders, the direct handles and the lost writes of old, whose place f takes.
// Mu is held exclusively.
func (f *File) Inherit(old *File) {
	f.opens.Add(old.opens.Load())
	f.writers.Add(old.writers.Load())
	f.WantDirect(old.directs.Load())
	f.carrier.InheritFailure(old.carrier)
}

// WantDirect changes the number of handles opened O_DIRECT. While there are any, I/O goes around
// BACKING's page cache, as far as BACKING permits.
func (f *File) WantDirect(change int64) {
	if change != 0 {
		f.directs.Add(change)
		f.UseDirect(int(change))
	}
}

// DirectHandles is the number of handles opened O_DIRECT.
func (f *File) DirectHandles() int64 { return f.directs.Load() }

// Serves reports whether the file, as it is open, will do for want. Mu is held.
func (f *File) Serves(want Intent) bool {
	return f.Adaptable(want) && f.Can.Covers(want) && !(want.Write && f.torn)
}

// Adaptable reports whether the file, perhaps with another descriptor, will do for want: want is to
// read, or the file's form may be written. Mu is held.
func (f *File) Adaptable(want Intent) bool {
	return !want.Write || f.Form == backing.Encrypted || f.Form.IsClear()
}

// Exchange makes fd the descriptor of the file, and takes over fd. fd is open on the same file, and
// can do can. The error is a lost write that the old descriptor had not reported. Mu is held
// exclusively.
func (f *File) Exchange(fd int, can Intent) error {
	f.Can = can
	return f.carrier.Exchange(fd)
}

// Lessens reports whether a descriptor for reading would do: no holder may write, and this
// descriptor need not take back a change of the content. Mu is held.
func (f *File) Lessens() bool {
	if f.HasWriters() || !f.Can.Write {
		return false
	}
	switch c := f.Content.(type) {
	case *encrypted:
		return c.NothingToUndo()
	case *moving: // the mover writes
		return false
	}
	return true
}

// Stored is the file as it lies in BACKING, for reading alone: to be judged.
func (f *File) Stored() cryptfile.Backing { return f.carrier }

// Unheard is a lost write of which no caller was told, or nil. The next open of the file is given
// the failure (InheritUnheard).
func (f *File) Unheard() *cryptfile.SyncFailure { return f.carrier.Unheard() }

// InheritUnheard takes over failure, unheard when the file was last closed.
func (f *File) InheritUnheard(failure *cryptfile.SyncFailure) { f.carrier.InheritUnheard(failure) }

// InClear reports whether the content lies in BACKING as the caller sees it.
func (f *File) InClear() bool {
	_, clear := f.Content.(*clearFile)
	return clear
}

// CopyFrom has the kernel copy size bytes, perhaps by sharing blocks, from another file:
// copy_file_range(2). Both files are InClear. EXDEV: the copy would begin where the magic of an
// encrypted file stands.
func (f *File) CopyFrom(from *File, offIn, offOut int64, size int) (int, error) {
	if offOut < magicLen {
		return 0, unix.EXDEV
	}
	return unix.CopyFileRange(from.carrier.Fd(), &offIn, f.carrier.Fd(), &offOut, size, 0)
}

// healWait bounds the wait for a rekey of the same file.
const healWait = 2 * time.Second

// Heal makes the header slots of a file to be written the same. Heal reads the slots again first: a
// rekey may have come since the file was opened. Mu is held exclusively, or f is no inode's yet.
func (f *File) Heal() error {
	if !f.torn {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), healWait)
	defer cancel()
	var err error
	switch c := f.Content.(type) {
	case *encrypted:
		err = c.HealHeader(ctx, f.carrier)
	case *moving:
		err = c.healHeader(ctx)
	}
	if err != nil {
		return fmt.Errorf("repair header: %w", err)
	}
	f.torn = false
	return nil
}
