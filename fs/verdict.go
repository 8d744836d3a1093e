package fs

import (
	"context"
	"fmt"
	"path"
	"slices"

	"vmcryptfs/fs/inode"
	"vmcryptfs/keys"
	"vmcryptfs/layout"
)

// Class and KEK belong to a place: a directory and a name in it. The rules that decide can be
// replaced while files are open. Open files go on as they are, also under a name that they get while
// they are open; files opened or made after TakeUpSettings go
// by the new rules.

// sealedRules are the rules of the settings, once the settings are proven.
type sealedRules struct {
	*layout.Places
	of *layout.Settings
}

// rules are the settings' rules once the settings are proven, and the built-in ones (nil) before:
// no program with access to BACKING makes a name clear.
func (f *FS) rules() *layout.Places {
	if r := f.sealed.Load(); r != nil {
		return r.Places
	}
	if !f.store.Verified() {
		return nil
	}
	r := f.newRules()
	if !f.sealed.CompareAndSwap(nil, r) { // another call was faster, or knows newer settings
		r = f.sealed.Load()
	}
	return r.Places
}

// newRules are the rules of the settings as they are now, which are proven. Rules that do not hold
// give way to the built-in ones.
func (f *FS) newRules() *sealedRules {
	s := f.store.Settings()
	p, err := layout.NewPlaces(s)
	if err != nil && f.told.first(toldFile{}, badRules) { // the settings were checked when they were read
		f.log.Error("the settings' rules do not hold; the built-in ones do", "error", err)
	}
	return &sealedRules{p, s}
}

// TakeUpSettings takes up the current settings, after a change, and waits until every file being
// made has its name, or will be made anew. Files that are made, or opened when nobody has them open,
// after TakeUpSettings has returned go by the rules and the KEK of these settings. A rekey calls TakeUpSettings between the change of
// the KEK and its walk. Safe for concurrent use; no lock of fs is held.
func (f *FS) TakeUpSettings() {
	f.names.Lock()
	defer f.names.Unlock()
	if !f.store.Verified() { // the next call of rules looks
		return
	}
	was, now := f.sealed.Load(), f.store.Settings()
	if was == nil || !sameRules(was.of, now) {
		f.sealed.Store(f.newRules())
		f.table.JudgeAnew()
	}
}

// sameRules reports whether class and KEK of every place are the same by both settings, but for the
// datastore's KEK, which is had from the store.
func sameRules(a, b *layout.Settings) bool {
	return slices.Equal(a.Encrypt, b.Encrypt) && slices.Equal(a.Clear, b.Clear) &&
		slices.Equal(a.Policies, b.Policies) && slices.EqualFunc(a.Places, b.Places, samePlace)
}

func samePlace(a, b layout.Place) bool {
	if !slices.Equal(a.Encrypt, b.Encrypt) || !slices.Equal(a.Clear, b.Clear) {
		return false
	}
	return a.Path == b.Path && a.ID == b.ID && a.Policy == b.Policy && a.KEK == b.KEK && a.Adopt == b.Adopt
}

// isHarmless reports whether the loss of a name is nothing to a file in clear: by the proven rules
// the name is clear in any directory. A lock of the table is held, so the directory's path cannot be asked.
func (f *FS) isHarmless(at inode.Place) bool {
	r := f.sealed.Load()
	return r != nil && r.Anywhere(at.Name).Class == layout.Clear
}

// verdict is the rules' verdict on a place.
func (f *FS) verdict(at inode.Place) layout.Verdict {
	p := f.rules()
	if !p.Any() {
		return p.Classify(at.Name, nil, false)
	}
	dir, known := f.dirPath(at.Dir)
	if !known {
		return p.Anywhere(at.Name)
	}
	return judge(p, at.Name, p.At(dir), func(a *layout.Area) bool { return f.holdsTag(at.Dir, a) })
}

// judge is the verdict of p on a name in a directory that is the place a, or none. tagged looks for the
// tag of a in the directory, and is called only where the tag decides.
func judge(p *layout.Places, name string, a *layout.Area, tagged func(*layout.Area) bool) layout.Verdict {
	without := p.Classify(name, a, false)
	if !a.Tagged() {
		return without
	}
	with := p.Classify(name, a, true)
	if with.Class == without.Class || !tagged(a) {
		return without
	}
	return with
}

// verdictAt is verdict for a path below BACKING, whose directory is open as dir.
func (f *FS) verdictAt(dir int, at string) layout.Verdict {
	p := f.rules()
	return judge(p, path.Base(at), p.At(path.Dir(at)), func(a *layout.Area) bool { return f.readTag(dir, a.Place.ID) == nil })
}

// kekFor is the KEK of a new file at a place. A directory whose path is not known may lie under any
// policy, so no key is the right one there.
func (f *FS) kekFor(at inode.Place) (keys.Ref, error) {
	p := f.rules()
	if !p.Any() {
		return f.store.KEK(), nil
	}
	dir, known := f.dirPath(at.Dir)
	if !known {
		return keys.Ref{}, fmt.Errorf("the path of its directory is not known, and policies choose the KEK by the path; look the directory up by its path: %w", keys.ErrNoKey)
	}
	return f.kekOf(p.Over(dir)), nil
}

// prove checks the settings' seal, unless the seal is proven already.
func (f *FS) prove(ctx context.Context) error { return f.store.Verify(ctx, f.keys) }

// ruling is a verdict over several names of a node.
type ruling struct {
	layout.Verdict
	at   inode.Place // the name that decided; zero: n has no name, or too many were lost
	lost bool        // n has lost that name
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

// placeOf is the place whose KEK n is encrypted under: that of the strictest known name, or of the
// name lost last.
func (f *FS) placeOf(n *node) inode.Place {
	if at := f.known(n).at; at.Dir != nil {
		return at
	}
	_, last := n.Names()
	return last
}

// strictestOf is the strictest ruling over names, at least one.
func (f *FS) strictestOf(names []inode.Place, lost bool) ruling {
	r := ruling{Verdict: f.verdict(names[0]), at: names[0], lost: lost}
	for _, at := range names[1:] {
		if v := f.verdict(at); stricter(v.Class, r.Class) {
			r = ruling{v, at, lost}
		}
	}
	return r
}

// strictest is the strictest ruling over all names by which the kernel may have come to n. Code
// that makes cleartext, or serves it, goes by strictest.
func (f *FS) strictest(n *node) ruling {
	r := f.known(n)
	if l := f.lost(n); stricter(l.Class, r.Class) {
		return l
	}
	return r
}

// lost is the strictest ruling over the lost names of n; class clear if none counts.
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

// clearBut reports whether n may turn clear when its name from becomes another: no other name that
// may have led the kernel to n is to be encrypted.
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
