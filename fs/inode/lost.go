package inode

import (
	"slices"
	"time"
)

// An open comes by a node, and FUSE does not say by which name. So a file in clear is judged
// by every name by which the kernel may have come to the node (FS.strictest). Those are the
// names that the table knows, and names that the node lost a short time ago:
//
//   - Other hands took the name in BACKING, and a look-up found that. The kernel may believe
//     it for cacheTime, if the look-up was one of our own (rename, a file handle's path,
//     READDIRPLUS of what is gone). Where it was the kernel's, another caller may be between
//     its look-up and its open.
//   - The name was removed or replaced through the mount, or cleartext that its class encrypts
//     was renamed from it, while a caller was between the two. (Every other rename gives the
//     file the form of its new name, and who has it open goes on with that form.)
//
// The table has every other name that the kernel has: LOOKUP, CREATE, MKNOD, MKDIR, SYMLINK,
// LINK and READDIRPLUS note the name before they are answered, and RENAME moves it. A file
// handle brings the kernel to a node by no name: when the kernel asks for that node, recall
// looks all of the file's names up.
//
// A name that other hands took counts until a look-up finds it gone. No look-up may come, so
// whoever refuses an open looks for itself (forgetStale).

// LostFor is how long a lost name counts: ten times as long as the kernel believes a name, so
// that an open which was under way has come.
const LostFor = 10 * CacheTime

// mostLost bounds the lost names that count of one node. While there are more, the node counts as
// one whose class is encrypted.
const mostLost = 64

// losses are the names that a node lost. They are kept by where they were, and judged when somebody
// asks: by then other rules may hold.
type losses struct {
	last []loss
	more time.Time // until then names count that last has no room for
}

// loss is a lost name, which counts until a time.
type loss struct {
	at    Place
	until time.Time
}

// lose notes that n lost a name. t.mu is held.
func (t *Table) lose(n *Inode, at Place) {
	if !n.IsRegular() {
		return
	}
	now := t.Now()
	n.lost.forget(now)
	until := now.Add(LostFor)
	n.lost.last = slices.DeleteFunc(n.lost.last, func(l loss) bool { return l.at == at })
	if len(n.lost.last) == mostLost {
		n.lost.more = until
		return
	}
	n.lost.last = append(n.lost.last, loss{at, until})
}

// forget drops what counts no more.
func (l *losses) forget(now time.Time) {
	l.last = slices.DeleteFunc(l.last, func(l loss) bool { return !l.until.After(now) })
}

// LoseName notes the name that a rename took from n.
func (n *Inode) LoseName(at Place) {
	n.table.mu.Lock()
	defer n.table.mu.Unlock()
	n.table.lose(n, at)
}

// LostNames gives the names that n lost and that count; more: there are others.
func (n *Inode) LostNames() (lost []Place, more bool) {
	t := n.table
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.Now()
	n.lost.forget(now)
	for _, l := range n.lost.last {
		lost = append(lost, l.at)
	}
	return lost, n.lost.more.After(now)
}

// CacheTime is how long the kernel may believe names and attributes: BACKING can change
// by other hands. A name that is not there is believed for no time.
const CacheTime = time.Second
