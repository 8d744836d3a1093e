package fs

import (
	"sync/atomic"

	"vmcryptfs/fs/backing"

	"golang.org/x/sys/unix"
)

// The kernel keeps pages of files, and drops them when it is told to: at an open, and
// when attributes show that somebody else has changed a file that is open.

// asRead tells if the pages that the kernel has of n, which is open, are right: nobody can
// have changed the file but through this mount. Where this mount changed it a stranger's
// change could not be told: that none was made is believed of an encrypted file, which is
// one virtual machine's, as long as it stays open. Cleartext may be a log that grows. now
// is the backing file that pages will be read from if these are dropped.
func (n *node) asRead() (now backing.Stamp, right bool) {
	n.Mu.RLock()
	defer n.Mu.RUnlock()
	var st unix.Stat_t
	if n.file == nil || unix.Fstat(n.FD(), &st) != nil {
		return backing.Stamp{}, false
	}
	now = backing.StampOf(&st)
	n.formMu.Lock()
	defer n.formMu.Unlock()
	if n.written.Load() {
		return now, n.file.Form == backing.Encrypted && n.since != backing.Stamp{}
	}
	return now, n.since == now
}

// foundChanged notes, before anything is written, if a file that is opened is not the one
// that the kernel's pages were read from: once it is written that cannot be told. n.mu is
// held exclusively.
func (n *node) foundChanged() {
	n.formMu.Lock()
	since := n.since
	n.formMu.Unlock()
	if since == (backing.Stamp{}) { // as for most files: nothing is believed of its pages
		return
	}
	var st unix.Stat_t
	if err := unix.Fstat(n.FD(), &st); err != nil || backing.StampOf(&st) != since {
		n.readSince(backing.Stamp{})
	}
}

// readSince notes what pages are read from since they were dropped; the zero stamp: it is
// not known what they were read from.
func (n *node) readSince(s backing.Stamp) {
	n.formMu.Lock()
	defer n.formMu.Unlock()
	n.since = s
	n.written.Store(false)
}

// changedByOthers tells if a cleartext file that is open here, and that this mount did not
// write, is another one than when pages were first read. (An encrypted one is one virtual
// machine's.) n.mu is held.
func (n *node) changedByOthers(now backing.Stamp) bool {
	if n.file == nil || n.file.Form == backing.Encrypted || n.written.Load() {
		return false
	}
	n.formMu.Lock()
	defer n.formMu.Unlock()
	return n.since != now
}

// refresh has pages dropped that others made wrong: once for a change, and before anybody
// hears of it. No lock is held but that of a directory being listed.
func (f *FS) refresh(n *node, seen look) {
	if !seen.stale || n.hasNoticed(seen.version) {
		return
	}
	f.dropPages(n)
	n.formMu.Lock()
	defer n.formMu.Unlock()
	n.noticed = seen.version
}

func (n *node) hasNoticed(now backing.Stamp) bool {
	n.formMu.Lock()
	defer n.formMu.Unlock()
	return n.noticed == now
}

// dropPages makes the kernel read n's pages anew. No lock is held: the kernel waits for
// reads under way, and writes back first what was changed through a mapping.
func (f *FS) dropPages(n *node) { f.notify(n, 0, 0) }

// dropAttributes makes the kernel ask for n's attributes anew.
func (f *FS) dropAttributes(n *node) { f.notify(n, -1, 0) } // a negative offset: pages stay

func (f *FS) notify(n *node, off, length int64) {
	if s := f.notifier.Load(); s != nil {
		(*s).InodeNotify(n.ID, off, length) // ENOENT: the kernel has none
	}
}

// pages keeps what the kernel has cached of a file right beside direct writes. The kernel
// itself drops pages under those before it sends them, so a READ that was answered first
// may bring old ones after.
type pages struct {
	buffered atomic.Int64 // handles that read and write through the page cache
	stale    atomic.Bool  // written directly while there was none
	late     atomic.Int64 // writes whose pages are dropped after their answer
}

// mostWaiting bounds the direct writes that wait for pages before they are answered. A
// readahead has its pages locked while the kernel has as many asynchronous requests under
// way as it may (128, by fs/transport): were all those writes to these pages, it would
// wait for them and they for it.
const mostWaiting = 64

// wroteDirectly is called when a direct write has landed, before it is answered, with no
// lock held: it waits for requests that hold the pages.
func (f *FS) wroteDirectly(n *node, off int64, length int) {
	if !n.pages.stale.Load() {
		n.pages.stale.Store(true)
	}
	if n.pages.buffered.Load() == 0 { // the next one drops them
		return
	}
	defer f.waiting.Add(-1)
	if f.waiting.Add(1) > mostWaiting {
		f.dropLater(n)
		return
	}
	f.notify(n, off, int64(length))
}

// dropLater has n's pages dropped when the caller's request has been answered.
func (f *FS) dropLater(n *node) {
	if n.pages.late.Add(1) > 1 {
		return
	}
	f.dropping.Go(func() {
		for {
			asked := n.pages.late.Load()
			f.dropPages(n)
			if n.pages.late.CompareAndSwap(asked, 0) {
				return
			}
		}
	})
}

// openBuffered counts a buffered handle of n, and tells if the pages that the kernel has are
// right. Those that are not are gone before this is noted: who opens the file meanwhile
// must not take them for right. No lock is held.
func (f *FS) openBuffered(n *node) bool {
	n.pages.buffered.Add(1)
	now, right := n.asRead()
	if right && !n.pages.stale.Load() {
		return true
	}
	f.dropPages(n)
	n.pages.stale.Store(false)
	n.readSince(now)
	return false
}

func (p *pages) closeBuffered() { p.buffered.Add(-1) }
