package fs

import (
	"errors"

	"golang.org/x/sys/unix"

	"vmcryptfs/fs/backing"
	"vmcryptfs/fs/cryptfile"
	"vmcryptfs/layout"
)

const (
	keepForm     plan = iota
	encryptFirst      // convert, then rename or link
	decryptAfter      // rename, then convert
	leaveClear        // no form, or cleartext that the old name's class encrypts
)

// converts reports whether the file changes its form.
func (p plan) converts() bool { return p == encryptFirst || p == decryptAfter }

// plan decides by the file's form; no key is needed. EXDEV: the caller is to copy the file.
// FS.names and n.Mu are held exclusively.
func (f *FS) plan(r recast) (plan, error) {
	n := r.node
	var st unix.Stat_t
	err := unix.Fstatat(r.from.Dir.FD(), r.from.Name, &st, unix.AT_SYMLINK_NOFOLLOW)
	switch {
	case err != nil:
		return keepForm, err
	case backing.KeyOf(&st) != n.Key(): // other hands replaced the file meanwhile
		return keepForm, unix.ENOENT
	}
	if f.leavesAdoption(r.renaming) {
		if p, plain, err := f.planLeaving(r); plain || err != nil {
			return p, err
		}
	}
	if r.before.Class == r.after.Class {
		return keepForm, nil
	}
	if f.isHalf(n, n.FD()) {
		return keepForm, errParts
	}
	before := r.before
	if k := f.known(n); st.Nlink > 1 && stricter(k.Class, before.Class) { // stricter by another name
		before = k.Verdict
	}
	p, size, err := n.planForm(before, r.after)
	switch {
	case err != nil || !p.converts():
		return p, err
	case p == decryptAfter && st.Nlink > 1: // its other names may want the encrypted form
		return keepForm, nil
	case size > maxConvert:
		return keepForm, unix.EXDEV
	case p == decryptAfter && !f.clearBut(n, r.from): // the encrypted form works, too
		return keepForm, nil
	default:
		return p, r.checkTarget()
	}
}

// planForm gives the plan, and the logical size in bytes of a file to be converted. n is pinned, and
// n.Mu exclusively.
func (n *node) planForm(before, after layout.Verdict) (plan, int64, error) {
	b, done, err := n.stored()
	if err != nil {
		return keepForm, 0, err
	}
	defer done()
	form, size, err := n.currentForm(b, before)
	if err != nil {
		return keepForm, 0, err
	}
	switch form {
	case backing.Encrypted:
		if after.Class == layout.Clear && after.Policy == "" && before.MayTurnClear() { // by a policy only a move makes clear
			return decryptAfter, size, nil
		}
		return keepForm, 0, nil
	case backing.Clear, backing.Descriptor:
		switch {
		case after.Class != layout.Clear:
		case stricter(before.Class, form.Class()): // other hands gave the file this name
			return leaveClear, 0, nil
		default:
			return keepForm, 0, nil
		}
		if now, err := backing.Judge(b, after); err != nil || now == backing.Descriptor {
			return keepForm, 0, err
		}
		return encryptFirst, size, nil
	default: // no form, cleartext refused under either name, or damage
		return leaveClear, 0, nil
	}
}

// stored is the backing file of n, open until done. n is pinned, and n.Mu held.
func (n *node) stored() (b cryptfile.Backing, done func(), err error) {
	if n.file != nil {
		return n.file.Stored(), func() {}, nil
	}
	fd, err := backing.Reopen(n.FD(), unix.O_RDONLY)
	if err != nil {
		return nil, nil, err
	}
	file := cryptfile.NewOSFile(fd)
	return file, func() { file.Close() }, nil
}

// formNow is the form of n, and the logical size in bytes. n is pinned, and n.Mu held.
func (n *node) formNow(before layout.Verdict) (backing.Form, int64, error) {
	b, done, err := n.stored()
	if err != nil {
		return backing.Empty, 0, err
	}
	defer done()
	return n.currentForm(b, before)
}

// currentForm is the form of n, whose backing file is b, and the logical size in bytes. An open
// file has the form in which it is open: even an empty one is written in that form.
func (n *node) currentForm(b cryptfile.Backing, before layout.Verdict) (backing.Form, int64, error) {
	if n.file != nil {
		size, err := n.file.Size()
		return n.file.Form, size, err
	}
	form, err := backing.Judge(b, before)
	if errors.Is(err, layout.ErrDamaged) {
		return backing.Empty, 0, nil
	}
	if err != nil {
		return backing.Empty, 0, err
	}
	size, err := b.Size()
	if form == backing.Encrypted {
		size, _ = layout.LogicalLen(size - layout.DataOffset)
	}
	return form, size, err
}

// checkTarget finds reasons for which the rename would fail after the conversion.
func (m renaming) checkTarget() error {
	var st unix.Stat_t
	err := unix.Fstatat(m.to.Dir.FD(), m.to.Name, &st, unix.AT_SYMLINK_NOFOLLOW)
	switch {
	case errors.Is(err, unix.ENOENT):
		return nil
	case err != nil:
		return err
	case !m.mayReplace():
		return unix.EEXIST
	case st.Mode&unix.S_IFMT == unix.S_IFDIR:
		return unix.EISDIR
	default:
		return nil
	}
}

// plan is the consequence, for a file, of a name of another class, by a rename or a link.
type plan uint8
