package inode

import (
	"slices"
	"time"
)

// An open names a node, and FUSE leaves out by which name the caller came. So a file in clear is
// judged by every name by which the kernel may have come to the inode (FS.strictest). Such names
// are those in the table, and names lost by the inode a short time ago:
//
//   - Other hands took the name in BACKING, and a look-up found that. After a look-up of our own
//     (rename, a file handle's path, READDIRPLUS of a removed name) the kernel may believe the name
//     for CacheTime. After a look-up of the kernel's, another caller may be between look-up and
//     open.
//   - The name was removed or replaced through the mount while a caller was between look-up and
//     open; or a rename took the name from cleartext that the class of the name encrypts. (Every
//     other rename gives the file the form of its new name, and open handles go on in the new
//     form.)
//
// The table has every other name that the kernel has: LOOKUP, CREATE, MKNOD, MKDIR, SYMLINK, LINK
// and READDIRPLUS note the name before the answer, and RENAME renames the noted name. A file handle
// brings the kernel to an inode by no name: when the kernel asks for that inode, FS.recall looks up
// all names of the file.
//
// A name that other hands took counts until a look-up finds the name gone. Perhaps no look-up
// comes, so the code that refuses an open looks first (FS.forgetStale).

// LostFor is the time for which a lost name counts: ten times as long as the kernel believes a
// name, so that an open under way has come.
const LostFor = 10 * CacheTime

// mostLost bounds the counted lost names of one inode. Where the bound is met, harmless names are
// passed over; with more names than the bound all the same, the inode counts for LostFor as one whose
// class is encrypted.
const mostLost = 64

// losses are the names that an inode lost. A loss is kept as a place, and judged on demand: by then
// other rules may hold.
type losses struct {
	last []loss
	more time.Time // until more, names count for which last has no room
	// passed: a harmless name was passed over then. The name counts again if other rules came since.
	passed time.Time
}

// clone shares nothing with l.
func (l *losses) clone() losses {
	c := *l
	c.last = slices.Clone(l.last)
	return c
}

// loss is a lost name, which counts until a time.
type loss struct {
	at    Place
	until time.Time
}

// lose notes that n lost a name. Table.mu is held.
func (t *Table) lose(n *Inode, at Place) {
	if !n.IsRegular() {
		return
	}
	now := t.Now()
	n.lost.forget(now)
	until := now.Add(LostFor)
	n.lost.last = slices.DeleteFunc(n.lost.last, func(l loss) bool { return l.at == at })
	n.lost.last = append(n.lost.last, loss{at, until})
	if len(n.lost.last) <= mostLost {
		return
	}
	if t.Harmless != nil {
		n.lost.last = slices.DeleteFunc(n.lost.last, func(l loss) bool { return t.Harmless(l.at) })
		n.lost.passed = now
	}
	if len(n.lost.last) > mostLost {
		n.lost.last = n.lost.last[:mostLost]
		n.lost.more = until
	}
}

// JudgeAnew notes that other rules hold from now on: names that were harmless may not be so any
// more.
func (t *Table) JudgeAnew() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.anew = t.Now()
}

// forget drops the losses whose time is over.
func (l *losses) forget(now time.Time) {
	l.last = slices.DeleteFunc(l.last, func(l loss) bool { return !l.until.After(now) })
}

// LoseName notes the name that a rename took from n.
func (n *Inode) LoseName(at Place) {
	n.table.mu.Lock()
	defer n.table.mu.Unlock()
	n.table.lose(n, at)
}

// LostNames gives the lost names of n that count. more: there are others, for which there was no
// room.
func (n *Inode) LostNames() (lost []Place, more bool) {
	t := n.table
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.Now()
	n.lost.forget(now)
	for _, l := range n.lost.last {
		lost = append(lost, l.at)
	}
	passed := !n.lost.passed.IsZero() && !n.lost.passed.After(t.anew) && n.lost.passed.Add(LostFor).After(now)
	return lost, passed || n.lost.more.After(now)
}

// CacheTime is the time for which the kernel may believe names and attributes: BACKING can change
// by other hands. The absence of a name is believed for no time.
const CacheTime = time.Second
