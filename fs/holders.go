package fs

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"vmcryptfs/fs/backing"
	"vmcryptfs/fs/cryptfile"
)

// openFile is the open backing file of a node, shared by its holders: handles, and operations that
// need the file open. The content is immutable. form, can and torn are guarded by the inode's Mu. A
// cleartext file's form follows the class of its names.
type openFile struct {
	content
	carrier *cryptfile.OSFile // the backing file that has the name
	form    backing.Form
	can     intent // what the carrier's descriptor can do
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

// hold adds a holder, who may write or not, if there is one already. Mu is held shared.
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

// letGo takes a holder away, unless he is the last, or the last of those who write: then leave does.
// (A writer is counted among the holders as long as he is counted among the writers.) Mu is held
// shared.
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

// join adds a holder. Mu is held exclusively.
func (o *openFile) join(write bool) {
	o.opens.Add(1)
	if write {
		o.writers.Add(1)
	}
}

// leave takes a holder away, and reports whether he was the last. Mu is held exclusively.
func (o *openFile) leave(write bool) (last bool) {
	if write {
		o.writers.Add(-1)
	}
	return o.opens.Add(-1) <= 0
}

// hasWriters reports whether some holder may write.
func (o *openFile) hasWriters() bool { return o.writers.Load() > 0 }

// inherit makes the holders of old, which o takes the place of, o's. Mu is held exclusively.
func (o *openFile) inherit(old *openFile) {
	o.opens.Add(old.opens.Load())
	o.writers.Add(old.writers.Load())
	o.wantDirect(old.directs.Load())
	o.carrier.InheritFailure(old.carrier)
}

// wantDirect counts handles opened O_DIRECT: as long as there are any, what BACKING
// permits goes around its page cache.
func (o *openFile) wantDirect(change int64) {
	if change != 0 {
		o.directs.Add(change)
		o.UseDirect(int(change))
	}
}

// handlesDirect is how many handles were opened O_DIRECT.
func (o *openFile) handlesDirect() int64 { return o.directs.Load() }

// serves reports whether the file as it is open will do for want.
func (o *openFile) serves(want intent) bool {
	return o.adaptable(want) && o.can.covers(want) && !(want.write && o.torn)
}

// adaptable reports whether the file will do for want with another descriptor: the file has a form
// that may be written, or want does not write.
func (o *openFile) adaptable(want intent) bool {
	return !want.write || o.form == backing.Encrypted || o.form.IsClear()
}

// exchange makes fd, open on the same file and able to do can, the descriptor of the file, and takes
// over fd. The error is one that the old descriptor had not told. Mu is held exclusively.
func (o *openFile) exchange(fd int, can intent) error {
	o.can = can
	return o.carrier.Exchange(fd)
}

// lessens reports whether a descriptor that only reads would do: nobody may write, and no change of
// the content waits to be taken back by this descriptor.
func (o *openFile) lessens() bool {
	if o.hasWriters() || !o.can.write {
		return false
	}
	e, ok := o.content.(*encrypted)
	return !ok || e.Settled()
}

// stored is the file as it lies in BACKING, to be judged. It is not to be written.
func (o *openFile) stored() cryptfile.Backing { return o.carrier }

// unheardFailure is what was lost with nobody told, or nil; for the next open of the file
// (inheritUnheard).
func (o *openFile) unheardFailure() *cryptfile.SyncFailure { return o.carrier.Unheard() }

// inheritUnheard makes failure, unheard when the file was closed last, one of this open.
func (o *openFile) inheritUnheard(failure *cryptfile.SyncFailure) { o.carrier.InheritUnheard(failure) }

// inClear reports whether the content lies in BACKING as the caller sees it.
func (o *openFile) inClear() bool {
	_, clear := o.content.(*clearFile)
	return clear
}

// copyFrom has the kernel copy, perhaps by sharing blocks, from another file in clear to this one:
// copy_file_range(2). Both are inClear. The beginning of the file is not written so, where the magic
// of an encrypted file would stand.
func (o *openFile) copyFrom(from *openFile, offIn, offOut int64, size int) (int, error) {
	if offOut < magicLen {
		return 0, unix.EXDEV
	}
	return unix.CopyFileRange(from.carrier.Fd(), &offIn, o.carrier.Fd(), &offOut, size, 0)
}

// healWait bounds the wait for a rekey of the same file.
const healWait = 2 * time.Second

// heal makes the header slots of a file that will be written the same, by what they are now: a rekey
// may have come since the file was opened. Mu is held exclusively, or o is no node's yet.
func (o *openFile) heal() error {
	file, ok := o.content.(*encrypted)
	if !ok || !o.torn {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), healWait)
	defer cancel()
	if err := file.HealHeader(ctx, o.carrier); err != nil {
		return fmt.Errorf("repair header: %w", err)
	}
	o.torn = false
	return nil
}
