package fs

import (
	"errors"
	"log/slog"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"vmcryptfs/fs/ability"
	"vmcryptfs/fs/backing"
	"vmcryptfs/fs/content"
	"vmcryptfs/fs/inode"
	"vmcryptfs/layout"
)

// Rename renames. Between names of different classes the file changes its form (design §4).
func (r raw) Rename(cancel <-chan struct{}, in *fuse.RenameIn, oldName, newName string) fuse.Status {
	from, err := r.directory(in.NodeId)
	if err != nil {
		return r.status(ofName("rename", from, oldName), err)
	}
	defer from.Unpin()
	to, err := r.directory(in.Newdir)
	if err != nil {
		return r.status(ofName("rename", to, newName), err)
	}
	defer to.Unpin()
	switch {
	case in.Flags&^(unix.RENAME_NOREPLACE|unix.RENAME_EXCHANGE|unix.RENAME_WHITEOUT) != 0:
		return fuse.EINVAL
	case layout.Reserved(oldName):
		return fuse.ENOENT
	case layout.Reserved(newName):
		return fuse.EPERM
	}
	m := renaming{from: from.In(oldName), to: to.In(newName), flags: uint(in.Flags), by: in.Caller}
	if r.cannot(m) {
		return fuse.EINVAL
	}
	return r.status(request{"rename", m.from, m.to}, r.renameWithPlaces(cancel, m))
}

// renaming is a rename(2) of a caller's.
type renaming struct {
	from, to inode.Place
	flags    uint // renameat2(2)'s
	by       fuse.Caller
}

func (m renaming) exchanges() bool  { return m.flags&unix.RENAME_EXCHANGE != 0 }
func (m renaming) whitesOut() bool  { return m.flags&unix.RENAME_WHITEOUT != 0 }
func (m renaming) mayReplace() bool { return m.flags&(unix.RENAME_EXCHANGE|unix.RENAME_NOREPLACE) == 0 }

// cannot reports whether BACKING is known to lack the flags of m. BACKING itself may be silent: a
// file system that passes over flags would replace a file instead, and leave no whiteout.
func (f *FS) cannot(m renaming) bool {
	able := f.Abilities()
	return (m.exchanges() || m.whitesOut()) && able.Lacks(ability.Exchange) ||
		m.flags&unix.RENAME_NOREPLACE != 0 && able.Lacks(ability.NoReplace)
}

// call renames in BACKING and in the table. errMoves: callMoving does. FS.names is held.
func (f *FS) call(m renaming) error {
	if f.takesCare(m) {
		return errMoves
	}
	return f.callAlone(m)
}

// callAlone is call, whether a file moves or not.
func (f *FS) callAlone(m renaming) error {
	// The replaced file loses its name, and may still be in use.
	if n := f.called(m.to); n != nil && n.Pin() == nil {
		defer n.Unpin()
	}
	if err := f.callBacking(m); err != nil {
		return err
	}
	if m.from.Dir != m.to.Dir {
		f.crossings.Add(1)
	}
	f.table.RenameName(m.from, m.to, m.exchanges())
	return nil
}

// callBacking makes the one system call that renames; a directory may grow by the call. A whiteout
// belongs to the caller, as every file made for a caller.
func (f *FS) callBacking(m renaming) error {
	rename := func() error {
		return unix.Renameat2(m.from.Dir.FD(), m.from.Name, m.to.Dir.FD(), m.to.Name, m.flags)
	}
	call := func() error { return f.charge(m.to.Dir, m.to.Dir.FD(), m.by, oneBlock, rename) }
	if m.whitesOut() {
		call = func() error { return f.daemon.as(m.by.Owner, rename) }
	}
	if m.mayReplace() {
		return f.emptied(m.to, call)
	}
	return call()
}

func (f *FS) rename(cancel <-chan struct{}, m renaming) error {
	err := f.renameWhole(cancel, m)
	if errors.Is(err, errMoves) {
		return f.renameMoving(m)
	}
	return err
}

// renameWhole is rename, and errMoves for a file that moves.
func (f *FS) renameWhole(cancel <-chan struct{}, m renaming) error {
	before, after, done, err := f.renameAlike(m)
	if done || err != nil {
		return err
	}
	n, err := f.visit(m.from)
	if err != nil {
		return err
	}
	defer f.table.Forget(n.ID, 1)
	switch {
	case m.exchanges():
		return f.exchangeNames(m, n)
	case n.IsRegular():
		return f.renameFile(cancel, recast{renaming: m, node: n, before: before, after: after})
	}
	f.names.RLock()
	defer f.names.RUnlock()
	if n.IsDir() && f.leavesAdoption(m) {
		return errAdopted
	}
	return f.call(m)
}

// renameAlike renames if both names are of one class, and nothing leaves adoption. Otherwise done is false, and the caller goes
// by the verdicts.
func (f *FS) renameAlike(m renaming) (before, after layout.Verdict, done bool, err error) {
	f.names.RLock()
	defer f.names.RUnlock()
	before, after = f.verdict(m.from), f.verdict(m.to)
	if before.Class != after.Class || f.leavesAdoption(m) {
		return before, after, false, nil
	}
	return before, after, true, f.call(m)
}

// visit counts a lookup of a name that the kernel believes to be a node's. ESTALE: other hands gave
// the name to another inode. The kernel would know the new name as the old node's, and open the
// node by that name; after ESTALE the kernel looks both names up anew, and tries once more. EXDEV:
// the table has lost track of the nodes that the kernel knows by the name.
func (f *FS) visit(at inode.Place) (*node, error) {
	f.names.RLock()
	defer f.names.RUnlock()
	believed := f.called(at)
	n, err := f.lookup(at)
	if err != nil {
		return nil, err
	}
	switch {
	case n != believed:
		err = unix.ESTALE
	case f.table.Overfull(): // the name may be other nodes', too
		err = unix.EXDEV
	default:
		return n, nil
	}
	f.table.Forget(n.ID, 1)
	return nil, err
}

// exchangeNames exchanges two names of different classes: of directories, links and files without a
// form. Two files with a form would both have to change it at once: EXDEV.
func (f *FS) exchangeNames(m renaming, n *node) error {
	other, err := f.visit(m.to)
	if err != nil {
		return err
	}
	defer f.table.Forget(other.ID, 1)
	f.names.Lock()
	defer f.names.Unlock()
	for _, x := range []*node{n, other} {
		if err := x.Pin(); err != nil {
			return err
		}
		defer x.Unpin()
	}
	first, second := inOrder(n, other)
	first.Mu.Lock()
	defer first.Mu.Unlock()
	if first != second {
		second.Mu.Lock()
		defer second.Mu.Unlock()
	}
	for _, x := range []*node{n, other} {
		var st unix.Stat_t
		if err := unix.Fstat(x.FD(), &st); err != nil {
			return err
		}
		if x.IsRegular() && (st.Size > 0 || x.file != nil) {
			return unix.EXDEV
		}
		x.generation++ // an open under way, with x judged by its old name, begins anew
	}
	if err := f.callMoving(m); err != nil {
		return err
	}
	n.LoseName(m.from) // an open by the old name may still come, and is judged by that name, too
	other.LoseName(m.to)
	return nil
}

// inOrder is the order in which two nodes are locked.
func inOrder(a, b *node) (first, second *node) {
	if a.Order > b.Order {
		return b, a
	}
	return a, b
}

// recast is the rename of a regular file to a name of another class.
type recast struct {
	renaming
	node          *node
	before, after layout.Verdict
}

func (f *FS) renameFile(cancel <-chan struct{}, r recast) error {
	err := f.supplied(cancel, r.node, r.to, func(k *fileKey) error { return f.tryRename(r, k) })
	if err == nil && r.after.Class == layout.Inspect {
		f.settleRenamed(cancel, r.node)
	}
	return err
}

// tryRename decides and renames in one: nothing changes the file, or the knowledge of the file,
// between the two.
func (f *FS) tryRename(r recast, k *fileKey) error {
	n := r.node
	f.names.Lock()
	defer f.names.Unlock()
	n.Mu.Lock()
	defer n.Mu.Unlock()
	// Again: newKey may have proven other rules since.
	r.before, r.after = f.verdict(r.from), f.verdict(r.to)
	p, err := f.plan(r)
	switch {
	case err != nil:
	case p == encryptFirst:
		err = f.encryptWith(n, k)
	case p.converts() && n.file == nil:
		err = errNeedContent
	case p.converts() && !f.store.Verified(): // only proven rules turn a file clear
		err = errNeedKey
	}
	if err != nil {
		return err
	}
	if err := f.callMoving(r.renaming); err != nil {
		return err
	}
	f.recast(r, p)
	return nil
}

// recast makes the node agree with its new name.
func (f *FS) recast(r recast, p plan) {
	n := r.node
	n.generation++ // an open under way, with n judged by its old name, begins anew
	if p == leaveClear {
		n.LoseName(r.from) // an open by the old name may still come, and is judged by that name
	}
	// A file encrypted for its old name stays so, until a write under the new name.
	n.unsettled.Store(r.before.MayTurnClear())
	if p == decryptAfter {
		if err := f.decrypt(n, backing.Clear); err != nil { // an encrypted file works under the new name, too
			f.tell(n, keptEncrypted, slog.LevelWarn, "a renamed file stays encrypted", "error", err)
		}
	}
	f.clearByName(n)
}

// clearByName makes the form of n, if n is open in clear, follow the class of all its names after a
// change of one. n.Mu is held exclusively.
func (f *FS) clearByName(n *node) {
	if n.file == nil || !n.file.Form.IsClear() {
		return
	}
	n.file.Form = backing.Clear
	if f.known(n).Class == layout.Inspect {
		n.file.Form = backing.Descriptor
	}
}

// settleRenamed lets an encrypted file with a new name of class inspect turn clear, if the file is
// a descriptor and its key is at hand. Otherwise the file stays encrypted, and works.
func (f *FS) settleRenamed(cancel <-chan struct{}, n *node) {
	var st unix.Stat_t
	if !n.unsettled.Load() || n.Stat(&st) != nil || st.Size > layout.DataOffset+layout.StoredLen(layout.MaxDescriptor) || st.Size == 0 {
		return
	}
	if f.acquire(cancel, n, content.Intent{Read: true}) != nil {
		return
	}
	f.settle(n)
	f.unheard(ofNode("close", n), f.release(n, false))
}
