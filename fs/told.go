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

// reason is why the log has a line about a file.
type reason uint32

const (
	keyLacking    reason = 1 << iota
	damagedHeader        // or the key does not fit it
	newerVersion
	unencrypted // cleartext under a name that is encrypted
	calledSo    // cleartext that had such a name a moment ago
	formless    // an empty file that cannot be given its form
	badLength   // no length that a file can have
	damagedData // met while the file was open
	keptClear   // a descriptor that could not be encrypted for a write
	keptEncrypted
	notSynced // the directory, after a change of form
	badRules
	looksEmpty   // a directory, and it cannot be removed
	unwritable   // by what BACKING lets be done with it
	lockedMemory // of no file, as are these: there is no more for keys
	backingFull
	quotaUsed
)

// ofOpening are the reasons that are over when the file has been opened well.
const ofOpening = keyLacking | damagedHeader | newerVersion | unencrypted | calledSo | formless

// told is what the log has said of which file: callers, and whoever writes BACKING, can cause
// the same line with every request. It is said once; the counts of Stats go on. It is said
// again after what was told is over, and after toldFor: it may be another block that is damaged
// then. Of nodes it knows nothing: the kernel forgets these, and has them made anew. Safe for
// concurrent use.
type told struct {
	now   func() time.Time // immutable
	any   atomic.Bool      // anything at all: without it an open that goes well does not look
	mu    sync.Mutex       // a leaf
	about map[toldFile]telling
}

// telling is what was told of a file, since a time.
type telling struct {
	why   reason
	since time.Time
}

// toldFor is how long what was told of a file is not told again.
const toldFor = 10 * time.Minute

// mostTold bounds the files that are remembered; then all begins anew.
const mostTold = 4096

// toldFile is the inode of a file as it is shown, which a conversion does not change; the zero
// one is the datastore.
type toldFile struct {
	ino  uint64
	born backing.Birth
}

func (n *node) toldFile() toldFile { return toldFileOf(&n.Inode) }

func toldFileOf(n *inode.Inode) toldFile { return toldFile{n.Ino, n.Born} }

// first tells if why has not been told of file, and notes that it is now.
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

// over notes that the reasons in why hold no more.
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

// refuse tells why a file is not served.
func (f *FS) refuse(n *node, why reason, message string, args ...any) {
	f.tell(n, why, slog.LevelWarn, "refused: "+message, args...)
}
