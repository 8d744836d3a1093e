package fs

import (
	"errors"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"vmcryptfs/fs/cryptfile"
	"vmcryptfs/layout"
)

// Rename renames; across classes the file changes its form (design §4).
func (r raw) Rename(cancel <-chan struct{}, in *fuse.RenameIn, oldName, newName string) fuse.Status {
	from, err := r.directory(in.NodeId)
	if err != nil {
		return r.status(err)
	}
	to, err := r.directory(in.Newdir)
	switch {
	case err != nil:
		return r.status(err)
	case in.Flags&^(unix.RENAME_NOREPLACE|unix.RENAME_EXCHANGE) != 0:
		return fuse.EINVAL
	case layout.Reserved(oldName):
		return fuse.ENOENT
	case layout.Reserved(newName):
		return fuse.EPERM
	}
	m := move{from: nameKey{from, oldName}, to: nameKey{to, newName}, flags: uint(in.Flags)}
	return r.status(r.rename(cancel, m))
}

// move is a rename.
type move struct {
	from, to nameKey
	flags    uint // RENAME_NOREPLACE or RENAME_EXCHANGE, or 0
}

// call renames in BACKING and in the table. FS.names is held.
func (f *FS) call(m move) error {
	if err := unix.Renameat2(m.from.parent.fd, m.from.name, m.to.parent.fd, m.to.name, m.flags); err != nil {
		return err
	}
	f.table.moveName(m.from, m.to, m.flags == unix.RENAME_EXCHANGE)
	return nil
}

func (f *FS) rename(cancel <-chan struct{}, m move) error {
	before, after := f.classify(m.from.name), f.classify(m.to.name)
	if before.Class == after.Class {
		f.names.RLock()
		defer f.names.RUnlock()
		return f.call(m)
	}
	n, err := f.visit(m.from)
	if err != nil {
		return err
	}
	defer f.table.forget(n.id, 1)
	if m.flags == unix.RENAME_EXCHANGE {
		return f.exchangeNames(m, n)
	}
	switch p, err := f.plan(n, before, after); {
	case err != nil:
		return err
	case p == encryptFirst:
		return f.renameEncrypted(cancel, m, n)
	case p == decryptAfter:
		return f.renameClear(cancel, m, n)
	case p == settleAfter:
		return f.renameInspect(cancel, m, n)
	default:
		return f.renameAsIs(m, n)
	}
}

// visit counts a lookup of a name.
func (f *FS) visit(at nameKey) (*node, error) {
	f.names.RLock()
	defer f.names.RUnlock()
	return f.lookup(at.parent, at.name)
}

// exchangeNames exchanges two names of different classes: directories, links and files
// that have no form yet. Two files would both have to change their form at once.
func (f *FS) exchangeNames(m move, n *node) error {
	other, err := f.visit(m.to)
	if err != nil {
		return err
	}
	defer f.table.forget(other.id, 1)
	for _, x := range []*node{n, other} {
		var st unix.Stat_t
		if err := x.stat(&st); err != nil {
			return err
		}
		if x.isRegular() && st.Size > 0 {
			return unix.EXDEV
		}
	}
	f.names.RLock()
	defer f.names.RUnlock()
	return f.call(m)
}

// plan is what a rename to another class means for a file.
type plan uint8

const (
	keepForm     plan = iota
	encryptFirst      // convert, then rename
	decryptAfter      // rename, then convert
	settleAfter       // rename, then look if it is a descriptor
)

// plan decides from the file's form; it needs no key. EXDEV: to be copied.
func (f *FS) plan(n *node, before, after layout.Verdict) (plan, error) {
	if !n.isRegular() {
		return keepForm, nil
	}
	b, _, err := n.reopen(true)
	if err != nil {
		return keepForm, err
	}
	defer b.Close()
	form, err := judge(b, before)
	if errors.Is(err, layout.ErrDamaged) {
		return keepForm, nil
	}
	if err != nil {
		return keepForm, err
	}
	p, err := planForm(form, b, before, after)
	if err != nil || p == keepForm || p == settleAfter {
		return p, err
	}
	return p, convertible(n, b, form)
}

func planForm(form form, b cryptfile.Backing, before, after layout.Verdict) (plan, error) {
	switch form {
	case formEncrypted:
		switch {
		case !before.MayTurnClear() || after.Class == layout.Encrypt:
			return keepForm, nil
		case after.Class == layout.Clear:
			return decryptAfter, nil
		default:
			return settleAfter, nil
		}
	case formClear, formDescriptor:
		if after.Class == layout.Clear {
			return keepForm, nil
		}
		if now, err := judge(b, after); err != nil || now == formDescriptor {
			return keepForm, err
		}
		return encryptFirst, nil
	default: // no form, or cleartext that is refused under either name
		return keepForm, nil
	}
}

// convertible is EXDEV for a file that is too long or has other names.
func convertible(n *node, b cryptfile.Backing, form form) error {
	var st unix.Stat_t
	if err := n.stat(&st); err != nil {
		return err
	}
	size := st.Size
	if form == formEncrypted {
		size, _ = layout.LogicalLen(st.Size - layout.DataOffset)
	}
	if size > maxConvert || st.Nlink > 1 {
		return unix.EXDEV
	}
	return nil
}

func (f *FS) renameAsIs(m move, n *node) error {
	f.names.RLock()
	defer f.names.RUnlock()
	if err := f.call(m); err != nil {
		return err
	}
	f.renamed(n)
	return nil
}

// renamed makes an open file know the class of its new name.
func (f *FS) renamed(n *node) {
	n.unsettled.Store(false) // what the old name keeps encrypted stays so until it is written
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.file != nil && (n.file.form == formClear || n.file.form == formDescriptor) {
		n.file.descriptor = f.verdict(n).Class == layout.Inspect
	}
}

// renameEncrypted encrypts a cleartext file and then renames it.
func (f *FS) renameEncrypted(cancel <-chan struct{}, m move, n *node) error {
	if err := f.acquire(cancel, n, false); err != nil {
		return err
	}
	err := f.withKey(cancel, func(k fileKey) error { return f.encryptAndRename(m, n, k) })
	return firstError(err, f.release(n))
}

func (f *FS) encryptAndRename(m move, n *node, k fileKey) error {
	f.names.Lock()
	defer f.names.Unlock()
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := f.checkMove(m, n); err != nil {
		k.dek.Wipe()
		return err
	}
	if n.file.form == formEncrypted { // meanwhile
		k.dek.Wipe()
	} else if err := f.encrypt(n, k); err != nil {
		return err
	}
	return f.call(m)
}

// renameClear renames an encrypted file and then decrypts it.
func (f *FS) renameClear(cancel <-chan struct{}, m move, n *node) error {
	if err := f.mayCreate(cancel); err != nil {
		return err // by proven rules alone something turns clear
	}
	if err := f.acquire(cancel, n, false); err != nil {
		return f.lacksKey(err)
	}
	return firstError(f.renameAndDecrypt(m, n), f.release(n))
}

func (f *FS) renameAndDecrypt(m move, n *node) error {
	f.names.Lock()
	defer f.names.Unlock()
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := f.checkMove(m, n); err != nil {
		return err
	}
	if err := f.call(m); err != nil {
		return err
	}
	if n.file.form != formEncrypted {
		return nil
	}
	if err := f.decrypt(n, false); err != nil { // it works under its new name all the same
		f.log.Warn("a renamed file stays encrypted", "file", f.path(n), "error", err)
	}
	return nil
}

// checkMove finds what would let a rename fail after, or because of, the conversion: the
// name is another file's meanwhile, the file has grown, the target is there or is a
// directory. FS.names and n.mu are held exclusively.
func (f *FS) checkMove(m move, n *node) error {
	var st unix.Stat_t
	if err := unix.Fstatat(m.from.parent.fd, m.from.name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	size, err := n.file.size()
	switch {
	case err != nil:
		return err
	case keyOf(&st) != f.table.keyOf(n):
		return unix.ENOENT
	case size > maxConvert || st.Nlink > 1:
		return unix.EXDEV
	}
	err = unix.Fstatat(m.to.parent.fd, m.to.name, &st, unix.AT_SYMLINK_NOFOLLOW)
	switch {
	case errors.Is(err, unix.ENOENT):
		return nil
	case err != nil:
		return err
	case m.flags == unix.RENAME_NOREPLACE:
		return unix.EEXIST
	case st.Mode&unix.S_IFMT == unix.S_IFDIR:
		return unix.EISDIR
	default:
		return nil
	}
}

// renameInspect renames an encrypted file to a name of class inspect. It turns clear if
// it is a descriptor and its key is at hand; else it stays, and works.
func (f *FS) renameInspect(cancel <-chan struct{}, m move, n *node) error {
	if err := f.renameAsIs(m, n); err != nil {
		return err
	}
	n.unsettled.Store(true)
	var st unix.Stat_t
	if err := n.stat(&st); err != nil || st.Size > layout.DataOffset+layout.StoredLen(layout.MaxDescriptor) {
		return nil // the rename is done; a long file is no descriptor
	}
	if err := f.acquire(cancel, n, false); err != nil {
		return nil
	}
	f.settle(n)
	return f.release(n)
}
