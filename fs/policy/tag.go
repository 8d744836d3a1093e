package policy

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"

	"golang.org/x/sys/unix"

	"vmcryptfs/byname"
	"vmcryptfs/layout"
)

// tagSize is the length of a tag in bytes: an id and a newline.
const tagSize = 37

// errNoDirectory says that a path leads to no directory.
var errNoDirectory = errors.New("leads to no directory")

// openDirectory opens the directory at, a path below BACKING, with no symbolic link on the way.
// errNoDirectory if there is none. The caller closes the descriptor.
func (c *Config) openDirectory(at string) (int, error) {
	fd, err := unix.Openat2(c.Store.Fd(), at, &unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	})
	switch {
	case err == nil:
		return fd, nil
	case leadsNowhere(err):
		return -1, fmt.Errorf("%s %w: %w", at, errNoDirectory, err)
	}
	return -1, &os.PathError{Op: "open directory", Path: at, Err: err}
}

// leadsNowhere reports whether err says that a path leads to no directory beneath BACKING.
func leadsNowhere(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) || errors.Is(err, unix.EXDEV)
}

// isGone reports whether a path of a place leads to no directory any more.
func (c *Config) isGone(at string) (bool, error) {
	dir, err := c.openDirectory(at)
	switch {
	case err == nil:
		return false, unix.Close(dir)
	case errors.Is(err, errNoDirectory):
		return true, nil
	}
	return false, err
}

// kindOf is the file type, in the bits of S_IFMT, of what lies at a path below BACKING.
func (c *Config) kindOf(at string) (uint32, error) {
	dir, err := c.openDirectory(path.Dir(at))
	if err != nil {
		return 0, err
	}
	defer unix.Close(dir)
	var st unix.Stat_t
	if err := unix.Fstatat(dir, path.Base(at), &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return 0, &os.PathError{Op: "stat", Path: at, Err: err}
	}
	return st.Mode & unix.S_IFMT, nil
}

// ReadTag is the id in the tag of the open directory dir; zero: there is no tag, or none of ours.
func ReadTag(dir int) (id layout.FileID, err error) {
	fd, st, err := byname.Open(dir, layout.PlaceTag, unix.O_RDONLY)
	if _, unfit := errors.AsType[*byname.UnfitError](err); unfit || errors.Is(err, unix.ENOENT) {
		return id, nil
	}
	if err != nil {
		return id, err
	}
	f := os.NewFile(uintptr(fd), layout.PlaceTag)
	defer f.Close()
	if st.Size != tagSize {
		return id, nil
	}
	text, err := io.ReadAll(io.LimitReader(f, tagSize))
	if err != nil || len(text) != tagSize {
		return id, err
	}
	id, err = layout.ParseFileID(string(text[:tagSize-1]))
	if err != nil || layout.TagText(id) != string(text) {
		return layout.FileID{}, nil
	}
	return id, nil
}

// tagAt is ReadTag of the directory at a path. errNoDirectory if there is none.
func (c *Config) tagAt(at string) (layout.FileID, error) {
	dir, err := c.openDirectory(at)
	if err != nil {
		return layout.FileID{}, err
	}
	defer unix.Close(dir)
	id, err := ReadTag(dir)
	if err != nil {
		return id, fmt.Errorf("tag of %s: %w", at, err)
	}
	return id, nil
}

// holdsTag reports whether the directory at a path holds the tag of the place id.
func (c *Config) holdsTag(at string, id layout.FileID) (bool, error) {
	found, err := c.tagAt(at)
	if errors.Is(err, errNoDirectory) {
		return false, nil
	}
	return found == id, err
}

// tag writes the tags of the places of next that need one and did not in was. A path that leads
// nowhere gets none: such a place does not hold. The settings are about to be sealed, and no other
// change is under way.
func (c *Config) tag(was, next *layout.Places, of []layout.Place) error {
	for i := range of {
		p := &of[i]
		before := was.At(p.Path)
		if !next.At(p.Path).Tagged() || before.Tagged() && before.Place.ID == p.ID {
			continue
		}
		err := c.writeTag(p.Path, p.ID)
		if err != nil && !errors.Is(err, errNoDirectory) {
			return fmt.Errorf("tag of place %s: %w", p.Path, err)
		}
	}
	return nil
}

// writeTag puts the tag of the place id durably into the directory at a path.
func (c *Config) writeTag(at string, id layout.FileID) error {
	dir, err := c.openDirectory(at)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	if found, err := ReadTag(dir); err != nil || found == id {
		return err
	}
	return byname.Replace(dir, layout.PlaceTag, []byte(layout.TagText(id)), 0o644)
}

// untag removes the tags of places of before that need none any more by the settings now, which are
// sealed. No other change is under way.
func (c *Config) untag(before, now *layout.Places, of []layout.Place) error {
	for i := range of {
		p := &of[i]
		a := now.At(p.Path)
		if !before.At(p.Path).Tagged() || a.Tagged() && a.Place.ID == p.ID {
			continue
		}
		err := c.removeTag(p.Path, p.ID)
		if err != nil && !errors.Is(err, errNoDirectory) {
			return fmt.Errorf("tag of %s: %w", p.Path, err)
		}
	}
	return nil
}

// removeTag removes the tag of the place id from the directory at a path; another's stays.
func (c *Config) removeTag(at string, id layout.FileID) error {
	dir, err := c.openDirectory(at)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	if found, err := ReadTag(dir); err != nil || found != id {
		return err
	}
	if err := unix.Unlinkat(dir, layout.PlaceTag, 0); err != nil && !errors.Is(err, unix.ENOENT) {
		return &os.PathError{Op: "remove", Path: path.Join(at, layout.PlaceTag), Err: err}
	}
	if err := unix.Fsync(dir); err != nil {
		return &os.PathError{Op: "sync directory", Path: at, Err: err}
	}
	return nil
}
