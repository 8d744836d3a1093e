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
// Content is immutable. Form, Can and what says so are guarded by the Mu of the inode whose file it
// is. A cleartext file's Form follows the class of its names.
type File struct {
	Content
	carrier *cryptfile.OSFile // the backing file that has the name
	Form    backing.Form
	Can     Intent // what the carrier's descriptor can do
	// opens counts holders. With Mu shared the count goes up from 1 and down to 1; the first holder
	// comes, and the last one goes, with Mu held exclusively.
	opens atomic.Int64
	// writers are those of them who may write. The last one goes with Mu held exclusively.
	writers atomic.Int64
	// directs are the handles opened O_DIRECT among them.
	directs atomic.Int64
	// torn: the header slots differed at open. They are made the same before the first
	// write.
	torn bool
}

// Hold adds a holder, who may write or not, if there is one already. Mu is held shared.
func (f *File) Hold(write bool) bool {
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

// LetGo takes a holder away, unless he is the last, or the last of those who write: then leave does.
// (A writer is counted among the holders as long as he is counted among the writers.) Mu is held
// shared.
func (f *File) LetGo(write bool) bool {
	return (!write || takeOne(&f.writers)) && takeOne(&f.opens)
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

// Join adds a holder. Mu is held exclusively.
func (f *File) Join(write bool) {
	f.opens.Add(1)
	if write {
		f.writers.Add(1)
	}
}

// Leave takes a holder away, and reports whether he was the last. Mu is held exclusively.
func (f *File) Leave(write bool) (last bool) {
	if write {
		f.writers.Add(-1)
	}
	return f.opens.Add(-1) <= 0
}

// HasWriters reports whether some holder may write.
func (f *File) HasWriters() bool { return f.writers.Load() > 0 }

// Inherit makes the holders of old, which o takes the place of, o's. Mu is held exclusively.
func (f *File) Inherit(old *File) {
	f.opens.Add(old.opens.Load())
	f.writers.Add(old.writers.Load())
	f.WantDirect(old.directs.Load())
	f.carrier.InheritFailure(old.carrier)
}

// WantDirect counts handles opened O_DIRECT: as long as there are any, what BACKING
// permits goes around its page cache.
func (f *File) WantDirect(change int64) {
	if change != 0 {
		f.directs.Add(change)
		f.UseDirect(int(change))
	}
}

// DirectHandles is how many handles were opened O_DIRECT.
func (f *File) DirectHandles() int64 { return f.directs.Load() }

// Serves reports whether the file as it is open will do for want.
func (f *File) Serves(want Intent) bool {
	return f.Adaptable(want) && f.Can.Covers(want) && !(want.Write && f.torn)
}

// Adaptable reports whether the file will do for want with another descriptor: the file has a form
// that may be written, or want does not write.
func (f *File) Adaptable(want Intent) bool {
	return !want.Write || f.Form == backing.Encrypted || f.Form.IsClear()
}

// Exchange makes fd, open on the same file and able to do can, the descriptor of the file, and takes
// over fd. The error is one that the old descriptor had not told. Mu is held exclusively.
func (f *File) Exchange(fd int, can Intent) error {
	f.Can = can
	return f.carrier.Exchange(fd)
}

// Lessens reports whether a descriptor that only reads would do: nobody may write, and no change of
// the content waits to be taken back by this descriptor.
func (f *File) Lessens() bool {
	if f.HasWriters() || !f.Can.Write {
		return false
	}
	e, ok := f.Content.(*encrypted)
	return !ok || e.Settled()
}

// Stored is the file as it lies in BACKING, to be judged. It is not to be written.
func (f *File) Stored() cryptfile.Backing { return f.carrier }

// Unheard is what was lost with nobody told, or nil; for the next open of the file
// (inheritUnheard).
func (f *File) Unheard() *cryptfile.SyncFailure { return f.carrier.Unheard() }

// InheritUnheard makes failure, unheard when the file was closed last, one of this open.
func (f *File) InheritUnheard(failure *cryptfile.SyncFailure) { f.carrier.InheritUnheard(failure) }

// InClear reports whether the content lies in BACKING as the caller sees it.
func (f *File) InClear() bool {
	_, clear := f.Content.(*clearFile)
	return clear
}

// CopyFrom has the kernel copy, perhaps by sharing blocks, from another file in clear to this one:
// copy_file_range(2). Both are inClear. The beginning of the file is not written so, where the magic
// of an encrypted file would stand.
func (f *File) CopyFrom(from *File, offIn, offOut int64, size int) (int, error) {
	if offOut < magicLen {
		return 0, unix.EXDEV
	}
	return unix.CopyFileRange(from.carrier.Fd(), &offIn, f.carrier.Fd(), &offOut, size, 0)
}

// healWait bounds the wait for a rekey of the same file.
const healWait = 2 * time.Second

// Heal makes the header slots of a file that will be written the same, by what they are now: a rekey
// may have come since the file was opened. Mu is held exclusively, or o is no node's yet.
func (f *File) Heal() error {
	file, ok := f.Content.(*encrypted)
	if !ok || !f.torn {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), healWait)
	defer cancel()
	if err := file.HealHeader(ctx, f.carrier); err != nil {
		return fmt.Errorf("repair header: %w", err)
	}
	f.torn = false
	return nil
}
