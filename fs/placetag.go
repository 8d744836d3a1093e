package fs

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"vmcryptfs/byname"
	"vmcryptfs/fs/backing"
	"vmcryptfs/fs/inode"
	"vmcryptfs/layout"
)

// A place that makes names clear holds only while its directory holds its tag, so that a directory
// put in its place by other hands encrypts. The tag is read for every verdict: what was read a moment
// ago may be another directory's by now.

// errNoTag: the file at the tag's name is not the tag of the place.
var errNoTag = errors.New("it is not the tag of this place")

// holdsTag reports whether a directory holds the tag of the place a. A failure to read is told
// once: names encrypt meanwhile.
func (f *FS) holdsTag(dir *inode.Inode, a *layout.Area) bool {
	err := dir.Pin()
	if err == nil {
		defer dir.Unpin()
		if err = f.readTag(dir.FD(), a.Place.ID); err == nil {
			f.told.over(toldFileOf(dir), tagLacking)
			return true
		}
	}
	if f.told.first(toldFileOf(dir), tagLacking) {
		f.log.Warn("a place makes no name clear: its tag cannot be read in its directory", "place", a.Place.Path,
			"policy", a.Policy.Name, "error", err, "advice", "if this is the directory that was meant: vmcryptfs policy rebind")
	}
	return false
}

// readTag is nil if the directory dir holds the tag of the place id.
func (f *FS) readTag(dir int, id layout.FileID) error {
	text, _, err := f.tagText(dir)
	if err == nil && text != layout.TagText(id) {
		err = errNoTag
	}
	return err
}

// tagText is the text at the tag's name in the directory dir, with the status of the file. The text
// of a longer file ends one byte behind the length of a tag.
func (f *FS) tagText(dir int) (string, unix.Stat_t, error) {
	var st unix.Stat_t
	fd, err := f.table.Sparing(func() (fd int, err error) {
		for {
			fd, st, err = byname.Open(dir, layout.PlaceTag, unix.O_RDONLY)
			if !errors.Is(err, unix.EINTR) {
				return fd, err
			}
		}
	})
	if err != nil {
		return "", st, err
	}
	defer unix.Close(fd)
	text := make([]byte, len(layout.TagText(layout.FileID{}))+1)
	n := 0
	for n < len(text) {
		m, err := unix.Pread(fd, text[n:], int64(n))
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return "", st, fmt.Errorf("read %s: %w", layout.PlaceTag, err)
		}
		if m == 0 {
			break
		}
		n += m
	}
	return string(text[:n]), st, nil
}

// takenTag is the tag of a directory that is being removed.
type takenTag struct {
	text string
	st   unix.Stat_t
}

// takeTag removes the tag from the directory dir. A file of the tag's name with another content is
// nobody's to remove.
func (f *FS) takeTag(dir int) (*takenTag, error) {
	text, st, err := f.tagText(dir)
	if err != nil {
		return nil, err
	}
	if !isTagText(text) {
		return nil, fmt.Errorf("%s: no tag of a place: %w", layout.PlaceTag, unix.ENOTEMPTY)
	}
	if err := removeIf(dir, layout.PlaceTag, backing.KeyOf(&st), 0); err != nil {
		return nil, err
	}
	return &takenTag{text, st}, nil
}

// isTagText reports whether a text is that of a place's tag.
func isTagText(text string) bool {
	if len(text) != len(layout.TagText(layout.FileID{})) {
		return false
	}
	id, err := layout.ParseFileID(text[:len(text)-1])
	return err == nil && text == layout.TagText(id)
}

// putBack makes the tag anew in the directory dir, which was not removed after all. EEXIST is no
// error: somebody else has made one. The tag comes with its name at once and whole: half of a tag
// would be no tag after a crash, and names would encrypt for good.
func (t *takenTag) putBack(dir int, temp string) error {
	const flags = unix.O_WRONLY | unix.O_CREAT | unix.O_EXCL | unix.O_NOFOLLOW | unix.O_CLOEXEC
	fd, err := unix.Openat(dir, temp, flags, t.st.Mode&0o777)
	if err != nil {
		return err
	}
	_, err = unix.Write(fd, []byte(t.text))
	err = firstError(err, unix.Fchown(fd, int(t.st.Uid), int(t.st.Gid)))
	err = firstError(err, unix.Fsync(fd))
	unix.Close(fd)
	if err == nil {
		err = unix.Renameat(dir, temp, dir, layout.PlaceTag)
	}
	if err != nil {
		return errors.Join(err, unix.Unlinkat(dir, temp, 0))
	}
	return nil
}
