package fs

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"vmcryptfs/fs/inode"
	"vmcryptfs/layout"
)

// errNoSeal: nobody gave this mount a way to change the settings.
var errNoSeal = fmt.Errorf("the directory is a place, or holds one, and this mount cannot change the settings: %w", unix.EPERM)

// renameWithPlaces is rename. A directory takes its places along.
func (f *FS) renameWithPlaces(cancel <-chan struct{}, m renaming) error {
	if !f.mayMovePlaces(m) {
		return f.rename(cancel, m)
	}
	if err := f.beginPlacing(cancel); err != nil {
		return err
	}
	defer f.endPlacing()
	p, err := f.placesMoved(m)
	if err == nil && p != nil {
		err = f.mayRenamePlaces(cancel, m)
	}
	if err == nil {
		err = f.clearTarget(cancel, m)
	}
	if err != nil {
		return err
	}
	if p == nil {
		return f.rename(cancel, m)
	}
	return f.renamePlaces(cancel, m, p)
}

// mayMovePlaces reports whether m renames a directory of a datastore with places. The settings need not
// be proven: a place that somebody without the key has added makes a rename wait for a key, no more.
func (f *FS) mayMovePlaces(m renaming) bool {
	return len(f.store.Settings().Places) > 0 && (f.leadsToDir(m.from) || m.exchanges() && f.leadsToDir(m.to))
}

// leadsToDir reports whether a name leads to a directory.
func (f *FS) leadsToDir(at inode.Place) bool {
	if n := f.called(at); n != nil {
		return n.IsDir()
	}
	var st unix.Stat_t
	err := unix.Fstatat(at.Dir.FD(), at.Name, &st, unix.AT_SYMLINK_NOFOLLOW)
	return err == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR
}

// placesMoved is the change of settings that m needs, or nil. ESTALE: the path of a directory is
// not known, and the kernel looks it up anew. FS.placing is had.
func (f *FS) placesMoved(m renaming) (*placeMove, error) {
	from, fromKnown := f.placePath(m.from)
	to, toKnown := f.placePath(m.to)
	places := f.store.Settings().Places
	if !fromKnown || !toKnown {
		one := &placeMove{}
		if fromKnown {
			one.rename = append(one.rename, relocation{from, from})
		}
		if toKnown && m.exchanges() {
			one.rename = append(one.rename, relocation{to, to})
		}
		if one.concerns(places) {
			return nil, fmt.Errorf("rename a place to a directory whose path is not known: %w", unix.ESTALE)
		}
		return nil, nil
	}
	if from == to {
		return nil, nil
	}
	p := &placeMove{}
	if f.leadsToDir(m.from) {
		p.rename = append(p.rename, relocation{from, to})
	}
	if m.exchanges() && f.leadsToDir(m.to) {
		p.rename = append(p.rename, relocation{to, from})
	}
	if !p.concerns(places) {
		return nil, nil
	}
	return p, nil
}

// mayRenamePlaces finds reasons for which places cannot be renamed, before anything is changed.
// FS.placing is had.
func (f *FS) mayRenamePlaces(cancel <-chan struct{}, m renaming) error {
	switch {
	case f.seal == nil:
		return errNoSeal
	case m.from.Dir.Key().Dev != m.to.Dir.Key().Dev:
		return unix.EXDEV
	}
	if err := f.mayCreate(cancel); err != nil { // the settings must be proven
		return err
	}
	return f.settleLocked(cancel)
}

// renamePlaces renames between two changes of the settings. After the first one it ends whatever
// happens to the caller. FS.placing is had.
func (f *FS) renamePlaces(cancel <-chan struct{}, m renaming, p *placeMove) error {
	err := f.sealSettings(cancel, p.begin)
	if err == nil {
		err = f.rename(cancel, m)
	}
	finish := p.end
	if err != nil {
		finish = p.undo
	} else if failed := errors.Join(syncDir(m.to.Dir), syncDir(m.from.Dir)); failed != nil {
		f.tellDouble(m, failed) // a crash may leave either path
		return nil
	}
	if len(p.moved) == 0 { // begin gave up
		return err
	}
	if failed := f.sealSettings(nil, finish); failed != nil {
		f.tellDouble(m, failed)
	}
	return err
}

// tellDouble logs that places keep two paths.
func (f *FS) tellDouble(m renaming, err error) {
	f.log.Warn("places of a renamed directory have two paths in the settings until the next mount", "from", f.pathAt(m.from),
		"to", f.pathAt(m.to), "error", err)
}

// syncDir is fsync of a directory, which is pinned.
func syncDir(dir *inode.Inode) error {
	fd, err := unix.Openat(dir.FD(), ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Fsync(fd)
}

// clearTarget removes the empty directory that m is about to replace, if the directory is a place:
// its path may be another place's afterwards, and the settings have one place for a path.
// FS.placing is had.
func (f *FS) clearTarget(cancel <-chan struct{}, m renaming) error {
	to, known := f.placePath(m.to)
	if !m.mayReplace() || !known || indexOf(f.store.Settings().Places, to) < 0 || !f.leadsToDir(m.to) {
		return nil
	}
	if from, _ := f.placePath(m.from); from == to || m.from.Dir.Key().Dev != m.to.Dir.Key().Dev {
		return nil
	}
	if err := f.removeName(m.to, unix.AT_REMOVEDIR); err != nil {
		return err
	}
	f.forgetPlace(cancel, to)
	return nil
}

// removeDirectory removes an empty directory, and then the place that it was.
func (f *FS) removeDirectory(cancel <-chan struct{}, at inode.Place) error {
	path, known := "", false
	if len(f.store.Settings().Places) > 0 {
		path, known = f.placePath(at)
	}
	if err := f.removeName(at, unix.AT_REMOVEDIR); err != nil {
		return err
	}
	if known && indexOf(f.store.Settings().Places, path) >= 0 && f.beginPlacing(cancel) == nil {
		defer f.endPlacing()
		f.forgetPlace(cancel, path)
	}
	return nil
}

// forgetPlace takes the place at a path, whose directory was removed, out of the settings. It is no
// error if that fails, for want of a key: the path leads nowhere. FS.placing is had.
func (f *FS) forgetPlace(cancel <-chan struct{}, path string) {
	places := f.store.Settings().Places
	i := indexOf(places, path)
	if i < 0 {
		return
	}
	err := f.sealSettings(cancel, func(s *layout.Settings) error {
		takeOut(s, path, places[i].ID)
		return nil
	})
	if err != nil {
		f.log.Warn("the place of a removed directory stays in the settings", "place", path, "error", err)
	}
}

// sealSettings changes the settings, which must be proven, and takes the change up. No lock of fs
// is held but FS.placing.
func (f *FS) sealSettings(cancel <-chan struct{}, edit func(*layout.Settings) error) error {
	if f.seal == nil {
		return errNoSeal
	}
	ctx, done := keyContext(cancel)
	defer done()
	if err := f.prove(ctx); err != nil {
		return f.lacksKey(err)
	}
	err := f.seal(ctx, edit)
	f.TakeUpSettings() // also after an error: this host's memory may be the only thing that failed
	return f.lacksKey(err)
}

// beginPlacing waits until no other request changes the paths of places. EINTR: the caller gave up.
func (f *FS) beginPlacing(cancel <-chan struct{}) error {
	select {
	case f.placing <- struct{}{}:
		return nil
	case <-cancel:
		return context.Canceled
	}
}

func (f *FS) endPlacing() { <-f.placing }
