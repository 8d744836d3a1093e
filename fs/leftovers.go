package fs

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"vmcryptfs/fs/backing"
	"vmcryptfs/fs/inode"
	"vmcryptfs/layout"
)

// A crash leaves temporaries, which are not to be seen. The temporaries of this host go at the next
// mount (sweep). Those of another host stay until that host mounts, and would keep a directory that
// looks empty from being removed: so rmdir removes them with the directory. Any other file of the
// program's stays, and so does the directory that holds such a file. (Where locks do not reach other
// hosts, a conversion there fails without its temporary, and the file keeps its form.)

// emptied calls remove, which removes or replaces the directory at a name. If the directory holds
// leftovers or the tag of a place, and nothing else, emptied removes them, and calls remove again. The
// tag comes back if the directory stays. FS.names is held.
func (f *FS) emptied(at inode.Place, remove func() error) error {
	err := remove()
	if !errors.Is(err, unix.ENOTEMPTY) && !errors.Is(err, unix.EEXIST) {
		return err
	}
	const flags = unix.O_PATH | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
	dir, failed := unix.Openat(at.Dir.FD(), at.Name, flags, 0)
	if inode.LeadsNowhere(failed) {
		return err
	}
	var cleared bool
	var tag *takenTag
	if failed == nil {
		defer unix.Close(dir)
		cleared, tag, failed = f.clearOut(at, dir)
	}
	if failed != nil {
		f.log.Warn("leftovers in a directory stay", "file", f.pathAt(at), "error", failed)
	}
	if !cleared {
		return err
	}
	if err = remove(); err != nil && tag != nil {
		f.restoreTag(at, dir, tag)
	}
	return err
}

// restoreTag puts the tag back into a directory that was not removed.
func (f *FS) restoreTag(at inode.Place, dir int, tag *takenTag) {
	if err := tag.putBack(dir, f.temps.name()); err != nil {
		f.log.Error("a directory was not removed, and has lost the tag of its place: its names encrypt", "file", f.pathAt(at),
			"error", err, "advice", "vmcryptfs policy rebind")
	}
}

// clearOut removes the leftovers and the tag in the directory dir, at a name, if there is nothing else.
func (f *FS) clearOut(at inode.Place, dir int) (cleared bool, tag *takenTag, err error) {
	foreign, hidden, tagged, left := "", true, false, false
	err = eachEntry(dir, func(name string) bool {
		hidden = layout.Reserved(name)
		switch {
		case name == layout.PlaceTag:
			tagged = true
		case hidden && !f.isLeftoverFile(dir, name):
			foreign = name
		default:
			left = true
		}
		return hidden && foreign == ""
	})
	switch {
	case err != nil || !hidden:
		return false, nil, err
	case foreign != "": // it looks empty, and nobody would know why it stays
		f.tellHidden(at, foreign)
		return false, nil, nil
	}
	if tagged {
		if tag, err = f.takeTag(dir); err != nil {
			f.tellHidden(at, layout.PlaceTag)
			return false, nil, err
		}
	}
	if !left {
		return true, tag, nil
	}
	if err = f.unlinkLeftovers(dir); err != nil {
		if tag != nil {
			f.restoreTag(at, dir, tag)
		}
		return false, nil, err
	}
	f.log.Info("removed the temporaries of other mounts in a directory that is removed", "file", f.pathAt(at))
	return true, tag, nil
}

// unlinkLeftovers removes the leftovers in dir. Each is looked at again, for others may put files
// into dir meanwhile: with one of theirs dir stays, so the rest may.
func (f *FS) unlinkLeftovers(dir int) error {
	var failed error
	err := eachEntry(dir, func(name string) bool {
		if !f.isLeftoverFile(dir, name) {
			var st unix.Stat_t
			return errors.Is(unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW), unix.ENOENT)
		}
		failed = unix.Unlinkat(dir, name, 0)
		return failed == nil || errors.Is(failed, unix.ENOENT)
	})
	if errors.Is(failed, unix.ENOENT) {
		failed = nil
	}
	return firstError(failed, err)
}

// tellHidden logs once why a directory that looks empty is not removed.
func (f *FS) tellHidden(at inode.Place, name string) {
	n := f.called(at)
	if n != nil {
		f.refuse(n, looksEmpty, "a directory that looks empty holds something of vmcryptfs", "holds", name,
			"advice", "look at it in BACKING before removing it there")
	}
}

// isLeftoverFile reports whether name in dir, which holds no visible name, is a leftover, and a regular
// file as all temporaries are.
func (f *FS) isLeftoverFile(dir int, name string) bool {
	var st unix.Stat_t
	if f.isHalfLeft(dir, name) {
		return true
	}
	return f.isLeftover(name) && unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW) == nil &&
		st.Mode&unix.S_IFMT == unix.S_IFREG
}

// eachEntry calls visit with each name in the directory, as long as visit returns true.
func eachEntry(dir int, visit func(name string) bool) error {
	s, err := backing.OpenDir(dir, ".", unix.O_NOATIME)
	if err != nil {
		return fmt.Errorf("list: %w", err)
	}
	defer s.Close()
	for {
		e, err := s.Read()
		if e == nil {
			return err
		}
		if name := string(e.Name); name != "." && name != ".." && !visit(name) {
			return nil
		}
	}
}
