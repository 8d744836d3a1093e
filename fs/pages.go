package fs

import (
	"sync/atomic"

	"vmcryptfs/fs/backing"

	"golang.org/x/sys/unix"
)

// The kernel keeps pages of files. The kernel drops pages when told to: at an open, and when the
// attributes of an open file show a change by others (a foreign change).

// asRead reports whether the kernel's cached pages of n, which is open, are still valid. After our
// own writes a foreign change cannot be detected; then the pages of encrypted files are trusted
// (one VM uses them), those of cleartext (a log may grow) are not. now is the stamp of the backing
// file from which dropped pages will be read again.
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
	if n.file.Pair() != nil && !n.written.Load() { // the stamp is that of one half
		return now, false
	}
	if n.written.Load() {
		return now, n.file.Form == backing.Encrypted && n.since != backing.Stamp{}
	}
	return now, n.since == now
}

// foundChanged checks, before a newly opened file is written, whether the kernel's pages were read
// from the file as it is now. After a write no check could tell. n.Mu is held exclusively.
func (n *node) foundChanged() {
	n.formMu.Lock()
	since := n.since
	n.formMu.Unlock()
	if since == (backing.Stamp{}) { // as for most files: no page is trusted
		return
	}
	var st unix.Stat_t
	if err := unix.Fstat(n.FD(), &st); err != nil || backing.StampOf(&st) != since {
		n.readSince(backing.Stamp{})
	}
}

// readSince notes the stamp of the file from which pages are read, after a drop of the former ones.
// The zero stamp: unknown.
func (n *node) readSince(s backing.Stamp) {
	n.formMu.Lock()
	defer n.formMu.Unlock()
	n.since = s
	n.written.Store(false)
}

// changedByOthers reports whether a file open in clear, and not written by this mount, has changed
// since pages were first read. (One virtual machine uses an encrypted file.) n.Mu is held.
func (n *node) changedByOthers(now backing.Stamp) bool {
	if n.file == nil || n.file.Form == backing.Encrypted || n.written.Load() {
		return false
	}
	n.formMu.Lock()
	defer n.formMu.Unlock()
	return n.since != now
}

// refresh has pages dropped that a foreign change made wrong: once for each change, and before any
// caller is told of the change. No lock is held but that of a directory being listed.
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

// dropPages makes the kernel read n's pages anew. No lock is held: the kernel waits for reads under
// way, and first writes back pages changed through a mapping.
func (f *FS) dropPages(n *node) { f.notify(n, 0, 0) }

// dropAttributes makes the kernel ask for n's attributes anew.
func (f *FS) dropAttributes(n *node) { f.notify(n, -1, 0) } // a negative offset: pages stay

func (f *FS) notify(n *node, off, length int64) {
	if s := f.notifier.Load(); s != nil {
		(*s).InodeNotify(n.ID, off, length) // ENOENT: the kernel has no pages
	}
}

// pages keeps the kernel's cache of a file right beside direct writes. The kernel itself drops
// pages under a direct write before sending the write, so a READ that was answered first may bring
// the former bytes afterwards.
type pages struct {
	buffered atomic.Int64 // handles that read and write through the page cache
	stale    atomic.Bool  // written directly while there was no buffered handle
	late     atomic.Int64 // writes whose pages are dropped after their answer
}

// mostWaiting bounds the direct writes that wait for pages before the answer. A readahead has its
// pages locked while the kernel has the greatest number of asynchronous requests under way (128, by
// fs/transport). If all of the requests were direct writes to the locked pages, the readahead would
// wait for the writes, and the writes for the readahead.
const mostWaiting = 64

// wroteDirectly drops the pages under a direct write that has landed, before the answer. No lock is
// held: wroteDirectly waits for requests that have the pages locked.
func (f *FS) wroteDirectly(n *node, off int64, length int) {
	if !n.pages.stale.Load() {
		n.pages.stale.Store(true)
	}
	if n.pages.buffered.Load() == 0 { // the next buffered handle drops the pages
		return
	}
	defer f.waiting.Add(-1)
	if f.waiting.Add(1) > mostWaiting {
		f.dropLater(n)
		return
	}
	f.notify(n, off, int64(length))
}

// dropLater has n's pages dropped after the answer to the caller's request.
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

// openBuffered counts a buffered handle of n, and reports whether the kernel's pages are right.
// Wrong pages are dropped before openBuffered notes so: another open meanwhile must not take wrong
// pages for right. No lock is held.
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
