package fs

import (
	"fmt"

	"golang.org/x/sys/unix"

	"vmcryptfs/fs/backing"
	"vmcryptfs/fs/inode"
	"vmcryptfs/layout"
)

// A place that adopts is being taken over: cleartext found below is served under names that
// encrypt, until it has been moved. Outside of such places cleartext is refused, so it does not
// leave one by a rename.

// adopts reports whether cleartext found in a directory is served: the directory is a place that
// adopts, or the encrypting place over the directory adopts.
func (f *FS) adopts(dir *inode.Inode) bool {
	p := f.rules()
	if p.Adopting() == 0 {
		return false
	}
	at, known := f.dirPath(dir)
	if !known {
		return false
	}
	here, over := p.At(at), p.Over(at)
	return here != nil && here.Place.Adopt || over != nil && over.Place.Adopt
}

// adopted reports whether n, in clear, is served for the sake of places that adopt: each name by
// which the kernel may have come to n is clear, or in such a place.
func (f *FS) adopted(n *node) bool {
	if f.rules().Adopting() == 0 {
		return false
	}
	names, last := n.Names()
	lost, more := n.LostNames()
	if more {
		return false
	}
	if len(names) == 0 {
		names = []inode.Place{last}
	}
	for _, at := range append(names, lost...) {
		if f.verdict(at).Class != layout.Clear && !f.adopts(at.Dir) {
			return false
		}
	}
	return true
}

// Adopting counts the places that serve cleartext found below under names that encrypt. 0 before the
// settings are proven. Safe for concurrent use.
func (f *FS) Adopting() int { return f.rules().Adopting() }

// errAdopted: the caller is to copy the file, and so encrypts it.
var errAdopted = fmt.Errorf("cleartext that is served only below a place that adopts: %w", unix.EXDEV)

// leavesAdoption reports whether m takes a file, or a directory with all below, from where cleartext is
// adopted to where it is not.
func (f *FS) leavesAdoption(m renaming) bool {
	if f.rules().Adopting() == 0 || m.from.Dir == m.to.Dir {
		return false
	}
	return f.unadopts(m.from, m.to) || m.exchanges() && f.unadopts(m.to, m.from)
}

// unadopts is leavesAdoption for one name. An encrypting place takes its own adoption along.
func (f *FS) unadopts(from, to inode.Place) bool {
	if !f.leadsToDir(from) {
		return f.verdict(to).Class != layout.Clear && f.adopts(from.Dir) && !f.adopts(to.Dir)
	}
	before, known := f.placePath(from)
	after, toKnown := f.dirPath(to.Dir)
	if !known || !toKnown {
		return false
	}
	p := f.rules()
	was, is := p.Over(before), p.Over(after)
	return was != nil && was.Place.Adopt && was != p.At(before) && (is == nil || !is.Place.Adopt)
}

// planLeaving is the plan for a file in clear that leaves adoption by r: encrypted first, or EXDEV.
// plain is false for a file of another form, to which adoption is nothing. FS.names and n.Mu are
// held exclusively.
func (f *FS) planLeaving(r recast) (p plan, plain bool, err error) {
	form, size, err := r.node.formNow(r.before)
	switch {
	case err != nil || form != backing.Plain:
		return keepForm, false, err
	case size > maxConvert:
		return keepForm, true, errAdopted
	default:
		return encryptFirst, true, r.checkTarget()
	}
}

// mayLinkAdopted is EXDEV for another name, outside of places that adopt, for cleartext inside: the
// strictest name decides, so the file would be refused by all its names.
func (f *FS) mayLinkAdopted(n *node, to inode.Place) error {
	if f.rules().Adopting() == 0 || f.adopts(to.Dir) || f.verdict(to).Class == layout.Clear {
		return nil
	}
	by := f.known(n)
	if by.Class == layout.Clear || by.at.Dir == nil || !f.adopts(by.at.Dir) {
		return nil
	}
	if err := n.Pin(); err != nil {
		return err
	}
	defer n.Unpin()
	n.Mu.RLock()
	defer n.Mu.RUnlock()
	form, _, err := n.formNow(by.Verdict)
	if err == nil && form == backing.Plain {
		err = errAdopted
	}
	return err
}
