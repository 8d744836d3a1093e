package fs

import (
	"context"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"vmcryptfs/fs/inode"
	"vmcryptfs/layout"
)

// SettlePlaces takes out the second path of places whose rename a crash cut off. A caller with a
// mount that writes calls it once the settings are proven; it does nothing before. Paths that
// cannot be told apart stay, and the log says so. Safe for concurrent use; ctx ends the wait for
// another rename of a place.
func (f *FS) SettlePlaces(ctx context.Context) error {
	if f.readOnly.Load() || !f.store.Verified() || !hasDoubles(f.store.Settings().Places) {
		return nil
	}
	if err := f.beginPlacing(ctx.Done()); err != nil {
		return err
	}
	defer f.endPlacing()
	return f.settleLocked(ctx.Done())
}

// settleLocked is SettlePlaces while FS.placing is had.
func (f *FS) settleLocked(cancel <-chan struct{}) error {
	places := f.store.Settings().Places
	if !hasDoubles(places) {
		return nil
	}
	gone := f.wrongPaths(places)
	if len(gone) == 0 {
		return nil
	}
	return f.sealSettings(cancel, func(s *layout.Settings) error {
		for _, p := range gone {
			takeOut(s, p.Path, p.ID)
		}
		return nil
	})
}

// hasDoubles reports whether a place has two paths.
func hasDoubles(places []layout.Place) bool {
	seen := make(map[layout.FileID]bool, len(places))
	for i := range places {
		if seen[places[i].ID] {
			return true
		}
		seen[places[i].ID] = true
	}
	return false
}

// wrongPaths are the places at those of two paths that do not lead to their directory.
func (f *FS) wrongPaths(places []layout.Place) (wrong []layout.Place) {
	first := make(map[layout.FileID]layout.Place, len(places))
	for _, p := range places {
		q, two := first[p.ID]
		first[p.ID] = p
		if !two {
			continue
		}
		pFits, err := f.fits(p)
		qFits, err2 := f.fits(q)
		switch {
		case err != nil || err2 != nil: // whatever lies there may be the right one
			f.log.Warn("a place has two paths, and they cannot be looked at", "place", p.Path, "other", q.Path, "error", firstError(err, err2))
		case pFits > qFits:
			wrong = append(wrong, q)
		case qFits > pFits:
			wrong = append(wrong, p)
		case pFits > nowhere:
			f.log.Warn("a place has two paths, and both lead to a directory", "place", p.Path, "other", q.Path,
				"advice", "vmcryptfs policy rebind the one that is meant")
		}
	}
	return slices.Clip(wrong)
}

// fit says how well a directory fits a place.
type fit uint8

const (
	nowhere fit = iota // no directory
	bare               // a directory
	tagged             // with the tag of the place
)

// fits says what lies at the path of a place.
func (f *FS) fits(p layout.Place) (fit, error) {
	dir, err := f.openBelow(p.Path)
	switch {
	case inode.LeadsNowhere(err):
		return nowhere, nil
	case err != nil:
		return nowhere, err
	}
	defer unix.Close(dir)
	if f.readTag(dir, p.ID) == nil {
		return tagged, nil
	}
	return bare, nil
}

// openBelow opens the directory at a path below BACKING as O_PATH, and follows no symbolic link.
func (f *FS) openBelow(path string) (int, error) {
	const flags = unix.O_PATH | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
	dir, err := unix.Openat(f.store.Fd(), ".", flags, 0)
	for _, name := range strings.Split(path, "/") {
		if err != nil {
			return -1, err
		}
		above := dir
		dir, err = unix.Openat(above, name, flags, 0)
		unix.Close(above)
	}
	return dir, err
}
