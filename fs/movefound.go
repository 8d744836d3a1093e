package fs

import (
	"context"
	"errors"
	"fmt"
	"path"

	"golang.org/x/sys/unix"

	"vmcryptfs/fs/backing"
	"vmcryptfs/layout"
)

// A crash leaves moves that are not over, and names of companions that count for nothing. FindMoves
// finds the first, to be gone on with, and removes the second.

// FoundMove is the carrier of a move, found by a walk. Only its mark was looked at, which no key
// proves.
type FoundMove struct {
	ID   layout.FileID
	Path string // below BACKING
}

// errWalked: a walk may have missed a file.
var errWalked = errors.New("files were renamed during the walk, which may have missed one: walk again")

// mostWalks bounds the walks of one FindMoves, while files are renamed from directory to directory.
const mostWalks = 3

// FindMoves walks BACKING for files that move. What counts for nothing is removed, unless BACKING is
// read-only. strays are the paths of companions without a carrier, which stay: the file that each
// belongs to may come back, as in a restore. Only without an error the walk has surely met every
// carrier: an id that it did not meet may then leave the settings. No lock of fs is held.
func (f *FS) FindMoves(ctx context.Context) (found []FoundMove, strays []string, err error) {
	for range mostWalks {
		before := f.renamesSoFar()
		w := moveWalk{fs: f, dirs: map[string]*moveNames{}}
		missed := w.run(ctx)
		if ctx.Err() != nil {
			return w.found, nil, ctx.Err()
		}
		strays, err = w.clean()
		if err = errors.Join(missed, err); err != nil {
			return w.found, strays, fmt.Errorf("look for files that move: %w", err)
		}
		if f.renamesSoFar() == before {
			return w.found, strays, nil
		}
		found = w.found
	}
	return found, strays, errWalked
}

// renamesSoFar counts the renames that may take a file around a walk. None is under way.
func (f *FS) renamesSoFar() uint64 {
	f.names.Lock()
	defer f.names.Unlock()
	return f.crossings.Load()
}

// moveWalk is one walk for moves.
type moveWalk struct {
	fs     *FS
	found  []FoundMove
	dirs   map[string]*moveNames // by path; those that hold a name of a companion
	broken []error
}

// run walks. Its error says what could not be looked at.
func (w *moveWalk) run(ctx context.Context) error {
	walk := backing.Walk{Root: w.fs.table.Root().FD(), Visit: w.visit, Broken: func(at string, err error) error {
		w.broken = append(w.broken, fmt.Errorf("%s: %w", at, err))
		return nil
	}}
	if err := walk.All(ctx); err != nil {
		return err
	}
	return errors.Join(w.broken...)
}

func (w *moveWalk) visit(dir int, at string, e *backing.Entry) error {
	name := path.Base(at)
	if _, _, ok := layout.ParseMoveName(name); ok {
		in := path.Dir(at)
		if w.dirs[in] == nil {
			w.dirs[in] = &moveNames{}
		}
		return nil
	}
	if e.Kind != unix.S_IFREG || layout.Reserved(name) {
		return nil
	}
	id, err := w.fs.markIn(dir, name)
	if err != nil {
		w.broken = append(w.broken, fmt.Errorf("%s: %w", at, err))
	}
	if id != none {
		w.found = append(w.found, FoundMove{id, at})
	}
	return nil
}

// markIn is the mark of a file in the directory dir. A file that is gone, or that is none, has none.
func (f *FS) markIn(dir int, name string) (layout.FileID, error) {
	var st unix.Stat_t
	err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW)
	if err == nil && (st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size < layout.DataOffset) {
		return none, nil
	}
	var seen looks
	if err == nil {
		seen, err = f.looksBeside(dir, name)
	}
	if errors.Is(err, unix.ENOENT) {
		err = nil
	}
	return seen.move, err
}

// clean removes, in the directories with names of companions, what counts for nothing.
func (w *moveWalk) clean() (strays []string, err error) {
	var failed []error
	for at := range w.dirs {
		left, err := w.fs.cleanMoves(at)
		if err != nil && !gonePath(err) {
			failed = append(failed, fmt.Errorf("%s: %w", at, err))
		}
		for _, name := range left {
			strays = append(strays, path.Join(at, name))
		}
	}
	return strays, errors.Join(failed...)
}

// gonePath reports whether err says that a directory is not at its path any more.
func gonePath(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP)
}

// cleanMoves removes what counts for nothing in the directory at a path, and returns the names of the
// companions that lack their carrier. Nobody begins, ends or renames meanwhile.
func (f *FS) cleanMoves(at string) (strays []string, err error) {
	f.names.Lock()
	defer f.names.Unlock()
	dir, err := unix.Openat2(f.table.Root().FD(), at, &unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		return nil, err
	}
	defer unix.Close(dir)
	names, err := f.readMoves(dir)
	if err != nil {
		return nil, err
	}
	var failed []error
	for _, n := range names.list {
		switch what := n.judge(names.carriers[n.id]); what {
		case stray:
			strays = append(strays, n.name)
		case belongs:
		default:
			failed = append(failed, f.cleanMove(dir, at, n, what))
		}
	}
	return strays, errors.Join(failed...)
}

// cleanMove does to a name of a companion what was judged.
func (f *FS) cleanMove(dir int, at string, n moveName, what moveVerdict) error {
	if f.readOnly.Load() {
		return nil
	}
	var err error
	if what == restore {
		err = unix.Renameat2(dir, n.name, dir, layout.MoveName(n.id), unix.RENAME_NOREPLACE)
		if isErrno(err, unix.EINVAL, unix.ENOSYS, unix.EOPNOTSUPP) { // BACKING cannot; there is no other
			err = unix.Renameat(dir, n.name, dir, layout.MoveName(n.id))
		}
	} else {
		err = removeIf(dir, n.name, n.key, 0)
	}
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("%s: %w", n.name, err)
	}
	f.log.Info("cleaned up after a move that was cut off", "directory", at, "name", n.name, "done", what.String())
	return nil
}
