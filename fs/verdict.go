package fs

import (
	"context"
	"path"
	"slices"

	"vmcryptfs/fs/inode"
	"vmcryptfs/keys"
	"vmcryptfs/layout"
)

// Class and KEK belong to a place: a directory and a name in it. The rules that decide can be
// replaced while files are open. What is open goes on as it is; what is opened or made after Settle
// goes by the new rules.

// sealedRules are the rules of the settings, once the settings are proven.
type sealedRules struct {
	*layout.Rules
	of *layout.Settings
}

// rules are the settings' rules once the settings are proven, before that the built-in ones: nobody
// who can write BACKING decides that a name is clear.
func (f *FS) rules() *layout.Rules {
	if r := f.sealed.Load(); r != nil {
		return r.Rules
	}
	if !f.store.Verified() {
		return nil
	}
	return f.takeUpRules()
}

// takeUpRules makes the proven settings' rules those that hold.
func (f *FS) takeUpRules() *layout.Rules {
	s := f.store.Settings()
	r, err := layout.NewRules(s.Encrypt, s.Clear)
	if err != nil { // the settings were checked when they were read
		if f.told.first(toldFile{}, badRules) {
			f.log.Error("the settings' rules do not hold; the built-in ones do", "error", err)
		}
		f.sealed.Store(nil)
		return nil
	}
	f.sealed.Store(&sealedRules{r, s})
	return r
}

// Settle takes up the settings as they are now, after a change, and waits until every file that
// was being made has its name, or will be made anew: what is opened or named after Settle has
// returned goes by the rules and the KEK of these settings. A rekey calls Settle between the change
// of the KEK and its walk.
func (f *FS) Settle() {
	f.names.Lock()
	defer f.names.Unlock()
	was := f.sealed.Load()
	if was == nil { // not proven yet: the next who asks looks
		return
	}
	if now := f.store.Settings(); !slices.Equal(was.of.Encrypt, now.Encrypt) || !slices.Equal(was.of.Clear, now.Clear) {
		f.takeUpRules()
	}
}

// verdict is what the rules say of a place.
func (f *FS) verdict(at inode.Place) layout.Verdict { return f.rules().Classify(at.Name) }

// verdictAt is verdict for a path below BACKING.
func (f *FS) verdictAt(at string) layout.Verdict { return f.rules().Classify(path.Base(at)) }

// kekFor is the KEK of a new file at a place: the datastore's, wherever that is.
func (f *FS) kekFor(inode.Place) keys.Ref { return f.store.KEK() }

// prove checks the settings' seal if that was not possible before.
func (f *FS) prove(ctx context.Context) error { return f.store.Verify(ctx, f.keys) }

// ruling is a verdict over several names of a node.
type ruling struct {
	layout.Verdict
	at   inode.Place // the name that decided; none: n has no name
	lost bool        // the node has that name no more
}

// known is the strictest ruling over the known names of n. A node that lost all its names is
// judged by the last one; a node that never had a name is to be encrypted.
func (f *FS) known(n *node) ruling {
	names, last := n.Names()
	if len(names) == 0 {
		if last.Name == "" {
			return ruling{}
		}
		return ruling{Verdict: f.verdict(last)}
	}
	return f.strictestOf(names, false)
}

// placeOf is the place that n's KEK belongs to: that of the strictest known name, or of the last.
func (f *FS) placeOf(n *node) inode.Place {
	if at := f.known(n).at; at.Dir != nil {
		return at
	}
	_, last := n.Names()
	return last
}

// strictestOf is the strictest ruling over names, of which there is one at least.
func (f *FS) strictestOf(names []inode.Place, lost bool) ruling {
	r := ruling{Verdict: f.verdict(names[0]), at: names[0], lost: lost}
	for _, at := range names[1:] {
		if v := f.verdict(at); stricter(v.Class, r.Class) {
			r = ruling{v, at, lost}
		}
	}
	return r
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
	names, more := n.LostNames()
	switch {
	case more: // the others may be of any class
		return ruling{lost: true}
	case len(names) == 0:
		return ruling{Verdict: layout.Verdict{Class: layout.Clear}}
	default:
		return f.strictestOf(names, true)
	}
}

// clearBut reports whether n may turn clear with its name from, which is to become another: no
// other name by which the kernel may have come to n is to be encrypted.
func (f *FS) clearBut(n *node, from inode.Place) bool {
	names, _ := n.Names()
	for _, at := range names {
		if at != from && f.verdict(at).Class != layout.Clear {
			return false
		}
	}
	return f.lost(n).Class == layout.Clear
}

// stricter reports whether class a encrypts more than b.
func stricter(a, b layout.Class) bool {
	rank := func(c layout.Class) int {
		switch c {
		case layout.Clear:
			return 0
		case layout.Inspect:
			return 1
		default:
			return 2
		}
	}
	return rank(a) > rank(b)
}
