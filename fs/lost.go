package fs

import (
	"slices"
	"time"

	"vmcryptfs/layout"
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
// A name that the kernel believes to be a node's, while the table knows that it is not, may be
// renamed through the mount: the kernel then believes the new name. So the new one counts for
// that node too (losers).
//
// The table has every other name that the kernel has: LOOKUP, CREATE, MKNOD, MKDIR, SYMLINK,
// LINK and READDIRPLUS note the name before they are answered, and RENAME moves it. A file
// handle brings the kernel to a node by no name: when the kernel asks for that node, recall
// looks all of the file's names up.

// lostFor is how long a lost name counts: ten times as long as the kernel believes a name, so
// that an open which was under way has come.
const lostFor = 10 * cacheTime

// mostLost bounds the lost names of a node; one with more is judged as one that encrypts.
const mostLost = 8

// lostName is a name that a node lost. An empty one stands for any.
type lostName struct {
	name  string
	until time.Time
}

// losers are the nodes for which other hands' change of a name counts. Guarded by table.mu.
type losers struct {
	now   func() time.Time // immutable
	at    map[nameKey][]loser
	swept time.Time
}

type loser struct {
	id    uint64
	until time.Time
}

// lose notes that n lost the name of key. byOthers: the kernel may believe it yet. table.mu is
// held.
func (t *table) lose(n *node, key nameKey, byOthers bool) {
	if !n.isRegular() {
		return
	}
	now := t.losers.now()
	until := now.Add(lostFor)
	n.lost = slices.DeleteFunc(n.lost, func(l lostName) bool { return l.name == key.name || !l.until.After(now) })
	if len(n.lost) < mostLost {
		n.lost = append(n.lost, lostName{key.name, until})
	} else {
		n.lost = append(n.lost[:0], lostName{"", until})
	}
	if byOthers {
		t.losers.add(key, loser{n.id, until}, now)
	}
}

// add notes a loser, and forgets those of long ago.
func (l *losers) add(key nameKey, x loser, now time.Time) {
	if now.Sub(l.swept) >= lostFor {
		l.swept = now
		for key, all := range l.at {
			if !all[len(all)-1].until.After(now) {
				delete(l.at, key)
			}
		}
	}
	same := func(y loser) bool { return y.id == x.id || !y.until.After(now) }
	l.at[key] = append(slices.DeleteFunc(l.at[key], same), x)
}

// follow has the nodes which the kernel may still know by from lose to as well, which a rename
// makes of it. table.mu is held.
func (t *table) follow(from, to nameKey) {
	now := t.losers.now()
	for _, x := range slices.Clone(t.losers.at[from]) {
		if n := t.byID[x.id]; n != nil && x.until.After(now) {
			t.lose(n, to, true)
		}
	}
}

// loseName is lose for the name that a rename of n took from it.
func (t *table) loseName(n *node, key nameKey) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.lose(n, key, false)
}

// lostBy are the names that n lost and that count.
func (t *table) lostBy(n *node) (names []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(n.lost) == 0 {
		return nil
	}
	now := t.losers.now()
	for _, l := range n.lost {
		if l.until.After(now) {
			names = append(names, l.name)
		}
	}
	return names
}

// strictest is the strictest verdict over all names by which the kernel may have come to n.
func (f *FS) strictest(n *node) layout.Verdict {
	v := f.verdict(n)
	for _, name := range f.table.lostBy(n) {
		w := layout.Verdict{} // of any name: encrypt
		if name != "" {
			w = f.classify(name)
		}
		if stricter(w.Class, v.Class) {
			v = w
		}
	}
	return v
}
