package fs

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"vmcryptfs/fs/backing"
	"vmcryptfs/layout"
)

// moveNames are the names of companions in one directory, and the carriers there.
type moveNames struct {
	list     []moveName
	carriers map[layout.FileID]bool
}

// moveName is a name of a companion in a directory.
type moveName struct {
	name  string
	id    layout.FileID
	gone  bool // the name is the one that it has while the carrier is removed
	key   backing.Key
	links uint64
	own   bool // the file itself bears the mark id
}

// readMoves reads the names and the marks in the directory dir. An error means that not every mark
// could be read: then nothing is removed.
func (f *FS) readMoves(dir int) (*moveNames, error) {
	m := &moveNames{carriers: map[layout.FileID]bool{}}
	var failed []error
	err := eachEntry(dir, func(name string) bool {
		id, gone, ok := layout.ParseMoveName(name)
		if layout.Reserved(name) && !ok {
			return true
		}
		mark, err := f.markIn(dir, name)
		if err != nil {
			failed = append(failed, fmt.Errorf("%q: %w", name, err))
		}
		if !ok {
			m.carriers[mark] = mark != none
			return true
		}
		var st unix.Stat_t
		if unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW) == nil && st.Mode&unix.S_IFMT == unix.S_IFREG {
			m.list = append(m.list, moveName{name, id, gone, backing.KeyOf(&st), uint64(st.Nlink), mark == id && id != none})
		}
		return true
	})
	return m, errors.Join(append(failed, err)...)
}

// moveVerdict is what a name of a companion is.
type moveVerdict uint8

const (
	belongs  moveVerdict = iota // to a carrier beside it
	stray                       // its carrier is elsewhere, if anywhere
	restore                     // a removal was cut off before the carrier went
	removed                     // a removal was cut off after the carrier went
	begun                       // a begin was cut off before the new file got the file's name
	leftLink                    // a begin, or a rename to another directory, was cut off
)

// String is what is done.
func (v moveVerdict) String() string {
	return [...]string{"kept", "kept, without its carrier", "given back to its carrier", "removed, like its carrier",
		"removed, the new file of a move that has not begun", "removed, a second link"}[v]
}

// judge decides about a name of a companion, with a carrier of its id beside it or not.
func (n moveName) judge(carrier bool) moveVerdict {
	switch {
	case n.gone && carrier:
		return restore
	case n.gone:
		return removed
	case carrier:
		return belongs
	case n.own:
		return begun
	case n.links > 1:
		return leftLink
	default:
		return stray
	}
}

// isHalfLeft reports whether name in the directory dir, which holds no visible name, is that of a
// companion that counts for nothing. A companion without a carrier stays: the file that it belongs to
// may come back.
func (f *FS) isHalfLeft(dir int, name string) bool {
	id, gone, ok := layout.ParseMoveName(name)
	var st unix.Stat_t
	if !ok || unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW) != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return false
	}
	mark, err := f.markIn(dir, name)
	if err != nil {
		return false
	}
	what := moveName{id: id, gone: gone, links: uint64(st.Nlink), own: mark == id && id != none}.judge(false)
	return what != stray
}
