package fs

import (
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
// The table has every other name that the kernel has: LOOKUP, CREATE, MKNOD, MKDIR, SYMLINK,
// LINK and READDIRPLUS note the name before they are answered, and RENAME moves it. A file
// handle brings the kernel to a node by no name: when the kernel asks for that node, recall
// looks all of the file's names up.
//
// A name that other hands took counts until a look-up finds it gone. No look-up may come, so
// whoever refuses an open looks for itself (forgetStale).

// lostFor is how long a lost name counts: ten times as long as the kernel believes a name, so
// that an open which was under way has come.
const lostFor = 10 * cacheTime

// losses are the names that a node lost, as far as they can make its class stricter: of each
// class the one that was lost last.
type losses struct {
	encrypt, inspect loss
	// unproven was lost before the settings' rules were proven, which may then encrypt any of
	// the names lost before.
	unproven loss
}

// loss is a lost name, which counts until a time.
type loss struct {
	name  string
	until time.Time
}

// lose notes that n lost a name. t.mu is held.
func (t *table) lose(n *node, name string) {
	if !n.isRegular() {
		return
	}
	rules := t.rules.Load()
	class := rules.Classify(name).Class
	if rules != nil && class == layout.Clear {
		return
	}
	if n.lost == nil {
		n.lost = new(losses)
	}
	lost := loss{name, t.now().Add(lostFor)}
	if rules == nil {
		n.lost.unproven = lost
	}
	switch class {
	case layout.Clear:
	case layout.Inspect:
		n.lost.inspect = lost
	default:
		n.lost.encrypt = lost
	}
}

// loseRenamed is lose for the name that a rename of n took from it.
func (t *table) loseRenamed(n *node, name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.lose(n, name)
}

// lostBy are the losses of n that count; the others are empty.
func (t *table) lostBy(n *node) (lost losses) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if n.lost == nil {
		return lost
	}
	now := t.now()
	lost = *n.lost
	for _, l := range []*loss{&lost.encrypt, &lost.inspect, &lost.unproven} {
		if !l.until.After(now) {
			*l = loss{}
		}
	}
	if lost == (losses{}) {
		n.lost = nil
	}
	return lost
}

// ruling is a verdict over several names of a node.
type ruling struct {
	layout.Verdict
	name string  // which decided
	at   nameKey // where that is; none if the name is lost
	lost bool
}

// strictest is the strictest ruling over all names by which the kernel may have come to n.
// Whatever makes cleartext, or serves it, goes by this.
func (f *FS) strictest(n *node) ruling {
	r := f.known(n)
	if l := f.lost(n); stricter(l.Class, r.Class) {
		return l
	}
	return r
}

// lost is the strictest ruling over the names that n lost; class clear if none counts.
func (f *FS) lost(n *node) ruling {
	lost := f.table.lostBy(n)
	rules := f.rules()
	switch {
	case lost.unproven.name != "" && rules != nil: // proven meanwhile: it may be of any class
		return ruling{name: lost.unproven.name, lost: true}
	case lost.encrypt.name != "":
		return ruling{Verdict: rules.Classify(lost.encrypt.name), name: lost.encrypt.name, lost: true}
	case lost.inspect.name != "":
		return ruling{Verdict: rules.Classify(lost.inspect.name), name: lost.inspect.name, lost: true}
	default:
		return ruling{Verdict: layout.Verdict{Class: layout.Clear}}
	}
}

// clearBut tells if n may turn clear with its name from, which is to become another: no other
// name by which the kernel may have come to n is to be encrypted.
func (f *FS) clearBut(n *node, from nameKey) bool {
	names, _ := f.table.namesOf(n)
	for _, at := range names {
		if at != from && f.classify(at.name).Class != layout.Clear {
			return false
		}
	}
	return f.lost(n).Class == layout.Clear
}
