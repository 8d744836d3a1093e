package fs

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"vmcryptfs/fs/backing"
	"vmcryptfs/fs/inode"
	"vmcryptfs/layout"
)

// A file that moves has a companion beside it, which a rename takes along and a removal takes away.
// BACKING cannot do both in one. The steps are in such an order that after a crash between any two
// the file is whole: FindMoves sees to what is left. Each directory is synced before a step that
// counts on its names. FS.names is held exclusively, so nobody looks for a companion meanwhile.

// errMoves: the request is about a file that moves, and needs FS.names exclusively.
var errMoves = errors.New("a file of the request moves")

// errParts: the request would part the two halves of a file.
var errParts = fmt.Errorf("the file moves, and is in two halves until the move is over: %w", unix.EXDEV)

// renameMoving is rename of, or over, a file that moves.
func (f *FS) renameMoving(m renaming) error {
	f.names.Lock()
	defer f.names.Unlock()
	if err := f.mayRenameMoving(m); err != nil {
		return err
	}
	return f.callMoving(m)
}

// mayRenameMoving is nil if m, which is about a file that moves, changes the form of no file. ESTALE:
// other rules hold since renameWhole looked, and the kernel tries once more. FS.names is held.
func (f *FS) mayRenameMoving(m renaming) error {
	from, _ := f.movesIn(m)
	alike := f.verdict(m.from).Class == f.verdict(m.to).Class
	n := f.called(m.from)
	switch {
	case from.moves() && !alike:
		return errParts
	case from.moves(), n != nil && !n.IsRegular():
		return nil
	case !alike || f.leavesAdoption(m):
		return unix.ESTALE
	default:
		return nil
	}
}

// callMoving is call, and takes companions along, or away. FS.names is held exclusively.
func (f *FS) callMoving(m renaming) error {
	from, to := f.movesIn(m)
	call := func() error { return f.callAlone(m) }
	if (from.moves() || to.moves()) && m.exchanges() {
		return errParts
	}
	if to.moves() && m.mayReplace() {
		replace := call
		call = func() error { return f.withoutCompanion(m.to, to, replace) }
	}
	if from.moves() && m.from.Dir != m.to.Dir {
		rename := call
		call = func() error { return f.withCompanion(m, from, rename) }
	}
	return call()
}

// companion is the companion of a move in one directory.
type companion struct {
	id  layout.FileID
	key backing.Key
}

// companionIn is the companion of the move id in the directory dir. ENOENT: there is none, as when
// only the last steps of the move are left.
func companionIn(dir int, id layout.FileID) (companion, error) {
	var st unix.Stat_t
	err := unix.Fstatat(dir, layout.MoveName(id), &st, unix.AT_SYMLINK_NOFOLLOW)
	return companion{id, backing.KeyOf(&st)}, err
}

// withCompanion calls rename, which takes the carrier h to another directory, between a link of the
// companion there and the unlink of the companion here.
func (f *FS) withCompanion(m renaming, h half, rename func() error) error {
	c, err := companionIn(m.from.Dir.FD(), h.id)
	switch {
	case errors.Is(err, unix.ENOENT):
		return rename()
	case err != nil:
		return err
	case h.links > 1:
		return errParts
	}
	if err := c.link(m.from.Dir, m.to.Dir); err != nil {
		return fmt.Errorf("take the other half of a moving file along: %w", err)
	}
	if err := rename(); err != nil {
		f.tellHalf(m.to, c.unlink(m.to.Dir.FD(), layout.MoveName(c.id)))
		return err
	}
	err = errors.Join(syncDir(m.to.Dir), syncDir(m.from.Dir))
	if err == nil {
		err = c.unlink(m.from.Dir.FD(), layout.MoveName(c.id))
	}
	f.tellHalf(m.from, err)
	return nil
}

// link gives the companion its name in another directory, durably. A name from an earlier try that
// was cut off will do.
func (c companion) link(from, to *inode.Inode) error {
	name := layout.MoveName(c.id)
	err := unix.Linkat(from.FD(), name, to.FD(), name, 0)
	switch {
	case errors.Is(err, unix.EEXIST):
	case noLinks(err): // the caller copies the file
		return fmt.Errorf("%w: %w", unix.EXDEV, err)
	case err != nil:
		return err
	}
	if err := leadsTo(to.FD(), name, c.key); err != nil {
		return err
	}
	if err := syncDir(to); err != nil {
		return errors.Join(err, c.unlink(to.FD(), name))
	}
	return nil
}

// unlink removes a name of the companion from the directory dir.
func (c companion) unlink(dir int, name string) error {
	err := removeIf(dir, name, c.key, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}

// withoutCompanion calls remove, which takes the name at away from the carrier h, between a rename of
// the companion, after which the companion counts for nothing without the carrier, and its unlink.
// Where another file may need the companion, it stays.
func (f *FS) withoutCompanion(at inode.Place, h half, remove func() error) error {
	dir := at.Dir.FD()
	c, err := companionIn(dir, h.id)
	if err != nil || h.links > 1 || f.isShared(at, h) {
		return remove()
	}
	move, gone := layout.MoveName(c.id), layout.GoneName(c.id)
	if err := c.rename(dir, move, gone); err != nil {
		return fmt.Errorf("set the other half of a moving file aside: %w", err)
	}
	n := f.called(at)
	if err := remove(); err != nil {
		f.tellHalf(at, c.rename(dir, gone, move))
		return err
	}
	if n != nil && n.Key() == h.key {
		n.abandonMove()
	}
	if err = syncDir(at.Dir); err == nil { // else the carrier could come back alone
		err = c.unlink(dir, gone)
	}
	f.tellHalf(at, err)
	f.log.Info("a file that moved was removed, and its move is over", "file", f.pathAt(at), "move", c.id)
	return nil
}

// rename gives the companion another name in its directory.
func (c companion) rename(dir int, from, to string) error {
	if err := leadsTo(dir, from, c.key); err != nil {
		return err
	}
	if err := unix.Renameat(dir, from, dir, to); err != nil {
		return err
	}
	return leadsTo(dir, to, c.key)
}

// isShared reports whether a second file in the directory bears the mark of the carrier h: somebody
// has copied one half.
func (f *FS) isShared(at inode.Place, h half) bool {
	count, err := f.carriersIn(at.Dir.FD(), h.id)
	if err != nil {
		f.log.Warn("the other half of a removed file stays: it cannot be told whether another file needs it", "file", f.pathAt(at),
			"half", layout.MoveName(h.id), "error", err)
	}
	return err != nil || count > 1
}

// abandonMove ends the move of n, which was removed.
func (n *node) abandonMove() {
	if p := n.moving.Load(); p != nil {
		p.Abandon()
	}
}

// tellHalf logs that a name of a companion is left over, which the next mount removes.
func (f *FS) tellHalf(at inode.Place, err error) {
	if err != nil {
		f.log.Warn("a name of the other half of a moving file stays until the next mount", "file", f.pathAt(at), "error", err)
	}
}

// removeMoving is removeName of a file that moves.
func (f *FS) removeMoving(at inode.Place) error {
	f.names.Lock()
	defer f.names.Unlock()
	if n := f.called(at); n != nil && n.Pin() == nil {
		defer n.Unpin()
	}
	unlink := func() error { return unix.Unlinkat(at.Dir.FD(), at.Name, 0) }
	var err error
	if h := f.halfAt(at); h.moves() {
		err = f.withoutCompanion(at, h, unlink)
	} else {
		err = unlink()
	}
	if err != nil {
		return err
	}
	f.table.Removed(at)
	return nil
}
