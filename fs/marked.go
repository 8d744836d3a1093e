package fs

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"vmcryptfs/fs/backing"
	"vmcryptfs/fs/cryptfile"
	"vmcryptfs/fs/inode"
	"vmcryptfs/layout"
)

// Which file moves, for requests about names: by the open file, or by the mark of a file that nobody
// has open. No key proves the mark here. Whoever sets a wrong mark could remove the companion himself.

// none is the id of no move.
var none layout.FileID

// statCompanion is fstat(2) of the companion of the move id, beside n. n is pinned, and n.Mu held.
func (f *FS) statCompanion(n *node, id layout.FileID, st *unix.Stat_t) error {
	names := f.pinnedNames(n, n.Key())
	defer unpinAll(names)
	if len(names) == 0 {
		return unix.ENOENT
	}
	return unix.Fstatat(names[0].Dir.FD(), layout.MoveName(id), st, unix.AT_SYMLINK_NOFOLLOW)
}

// isHalf reports whether n, whose descriptor is fd, moves. n is pinned, and n.Mu held.
func (f *FS) isHalf(n *node, fd int) bool {
	if n.file != nil || !n.IsRegular() {
		return n.moving.Load() != nil
	}
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil {
		return false
	}
	seen, _ := f.looksNow(n, &st)
	return seen.move != none
}

// half is a name of BACKING that leads to the carrier of a move.
type half struct {
	id    layout.FileID // none: no move
	key   backing.Key   // of the carrier
	links uint64
}

func (h half) moves() bool { return h.id != none }

// halfAt is the carrier that a name leads to. A name that leads to anything else, or that cannot be
// looked at, is no carrier's. No Mu is needed. FS.names is held, and the directory is pinned.
func (f *FS) halfAt(at inode.Place) half {
	var st unix.Stat_t
	err := unix.Fstatat(at.Dir.FD(), at.Name, &st, unix.AT_SYMLINK_NOFOLLOW)
	if err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size < layout.DataOffset {
		return half{}
	}
	h := half{key: backing.KeyOf(&st), links: uint64(st.Nlink)}
	if n := f.called(at); n != nil && n.Key() == h.key {
		if id, known := n.knownMove(&st); known {
			h.id = id
			return h
		}
	}
	seen, err := f.looksBeside(at.Dir.FD(), at.Name)
	if err != nil {
		f.log.Warn("it cannot be told whether a file moves, whose name is changed", "file", f.pathAt(at), "error", err)
	}
	h.id = seen.move
	return h
}

// knownMove is the move of n, if that is known without a look at the file, which has the status st.
func (n *node) knownMove(st *unix.Stat_t) (layout.FileID, bool) {
	if p := n.moving.Load(); p != nil {
		return p.ID(), true
	}
	n.formMu.Lock()
	defer n.formMu.Unlock()
	return n.seen.move, n.seen.valid && n.seen.version == backing.StampOf(st)
}

// looksBeside is what the regular file at a name looks like.
func (f *FS) looksBeside(dir int, name string) (looks, error) {
	fd, err := f.table.Sparing(func() (int, error) {
		return unix.Openat(dir, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOATIME|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return looks{}, fmt.Errorf("open %q: %w", name, err)
	}
	b := cryptfile.NewOSFile(fd)
	defer b.Close()
	return looksOf(b)
}

// movesIn is what m means for files that move: the renamed file, and the one that the new name leads
// to by now, unless that is the same. FS.names is held.
func (f *FS) movesIn(m renaming) (from, to half) {
	from, to = f.halfAt(m.from), f.halfAt(m.to)
	if to.key == from.key && from.moves() {
		to = half{}
	}
	return from, to
}

// takesCare reports whether m needs more than one call, or is refused, because a file moves.
func (f *FS) takesCare(m renaming) bool {
	from, to := f.movesIn(m)
	return from.moves() && (m.exchanges() || m.from.Dir != m.to.Dir) || to.moves() && (m.exchanges() || m.mayReplace())
}

// carriersIn counts the files with visible names in the directory dir that bear the mark id.
func (f *FS) carriersIn(dir int, id layout.FileID) (count int, err error) {
	var failed error
	err = eachEntry(dir, func(name string) bool {
		var st unix.Stat_t
		if layout.Reserved(name) || unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW) != nil ||
			st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size < layout.DataOffset {

			return true
		}
		seen, err := f.looksBeside(dir, name)
		if err != nil && !errors.Is(err, unix.ENOENT) {
			failed = err
		}
		if seen.move == id {
			count++
		}
		return true
	})
	return count, errors.Join(failed, err)
}
