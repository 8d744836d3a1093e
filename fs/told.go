package fs

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"vmcryptfs/fs/backing"
	"vmcryptfs/fs/inode"
)

// reason is the reason for a line in the log about a file.
type reason uint32

const (
	keyLacking    reason = 1 << iota
	damagedHeader        // or the key does not fit the header
	newerVersion
	unencrypted // cleartext under a name that is encrypted
	calledSo    // cleartext that had such a name a moment ago
	formless    // an empty file that cannot be given its form
	badLength   // a length that no encrypted file has
	damagedData // met while the file was open
	keptClear   // a descriptor that could not be encrypted for a write
	keptEncrypted
	notSynced // the directory, after a change of form
	badRules
	looksEmpty   // a directory that shows no entry, and cannot be removed
	unwritable   // because of the file's permissions in BACKING
	lockedMemory // of no file, as the rest: no more memory can be locked for keys
	backingFull
	quotaUsed
	unlisted   // half of a move that the settings do not list
	tagLacking // of a place, in its directory
	linkParts  // another name for a file that moves
)

// ofOpening are the reasons that a successful open of the file ends.
const ofOpening = keyLacking | damagedHeader | newerVersion | unencrypted | calledSo | formless | unlisted

// told remembers the reasons told in the log, by file. Callers, and programs that write BACKING,
// can cause the same line with every request; the line is written once, and the counts of Stats go
// on. The line is written again after over, and after toldFor: by then another block may be
// damaged. told goes by inode, not by node: the kernel forgets nodes, and has them made anew. Safe
// for concurrent use.
type told struct {
	now   func() time.Time // immutable
	any   atomic.Bool      // whether about has any entry: a successful open skips the lookup otherwise
	mu    sync.Mutex       // a leaf
	about map[toldFile]telling
}

// telling is the reasons told of a file, since a time.
type telling struct {
	why   reason
	since time.Time
}

// toldFor is the time for which a line about a file is not written again.
const toldFor = 10 * time.Minute

// mostTold bounds the files in told; at the bound, told begins anew.
const mostTold = 4096

// toldFile is the inode of a file as shown, which a conversion does not change. The zero toldFile
// is the datastore.
type toldFile struct {
	ino  uint64
	born backing.Birth
}

func (n *node) toldFile() toldFile { return toldFileOf(&n.Inode) }

func toldFileOf(n *inode.Inode) toldFile { return toldFile{n.Ino, n.Born} }

// first reports whether why has not been told of file, and notes that why is told now.
func (t *told) first(file toldFile, why reason) bool {
	now := t.now()
	t.mu.Lock()
	defer t.mu.Unlock()
	was, known := t.about[file]
	if now.Sub(was.since) >= toldFor {
		was = telling{since: now}
	}
	if was.why&why != 0 {
		return false
	}
	if t.about == nil || !known && len(t.about) >= mostTold {
		t.about = make(map[toldFile]telling)
	}
	was.why |= why
	t.about[file] = was
	t.any.Store(true)
	return true
}

// over notes that the reasons in why have ended.
func (t *told) over(file toldFile, why reason) {
	if !t.any.Load() {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	was := t.about[file]
	if was.why &^= why; was.why == 0 {
		delete(t.about, file)
	} else {
		t.about[file] = was
	}
	t.any.Store(len(t.about) > 0)
}

// tell logs a line about n, once for a reason.
func (f *FS) tell(n *node, why reason, level slog.Level, message string, args ...any) {
	if f.told.first(n.toldFile(), why) {
		f.log.Log(context.Background(), level, message, append([]any{"file", f.path(n)}, args...)...)
	}
}

// refuse logs the reason for which a file is not served.
func (f *FS) refuse(n *node, why reason, message string, args ...any) {
	f.tell(n, why, slog.LevelWarn, "refused: "+message, args...)
}
