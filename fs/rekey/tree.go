package rekey

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"vmcryptfs/layout"
)

// batch is how many names of a directory are read at once.
const batch = 512

// visitor is called with each name that may be a file: its directory, its name there and
// its path below BACKING. An error ends the walk.
type visitor func(dir int, name, rel string) error

// tree is a walk below BACKING by descriptors: nothing is followed out of it, and a
// directory that is moved meanwhile is walked where it goes.
type tree struct {
	root  int // BACKING
	visit visitor
	// broken is told of a directory that cannot be walked; an error ends the walk.
	broken func(rel string, err error) error
}

// walk visits what is at rel, a clean path below BACKING. Reserved names are passed
// over, symbolic links are not followed. A directory that is gone meanwhile is nothing;
// that rel is not there, or lies outside, is an error.
func (t *tree) walk(ctx context.Context, rel string) error {
	if reserved(rel) {
		return fmt.Errorf("%w: %s belongs to vmcryptfs", ErrRequest, rel)
	}
	parent, name := path.Split(rel)
	dir, err := t.openBeneath(path.Clean(parent))
	if err != nil {
		return fmt.Errorf("%s: %w", rel, err)
	}
	defer unix.Close(dir)
	var st unix.Stat_t
	if err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("%s: %w", rel, err)
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return t.directory(ctx, dir, name, rel)
	case unix.S_IFREG:
		return t.visit(dir, name, rel)
	default:
		return fmt.Errorf("%s: neither a regular file nor a directory", rel)
	}
}

// openBeneath opens a directory with no symbolic link on the way (openat2(2)).
func (t *tree) openBeneath(rel string) (int, error) {
	return unix.Openat2(t.root, rel, &unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	})
}

// directory walks the directory name in parent. Each level takes a descriptor, and whoever
// may make directories can nest them without end, so a walk ends where paths do.
func (t *tree) directory(ctx context.Context, parent int, name, rel string) error {
	if len(rel) >= unix.PathMax {
		return t.broken(rel, fmt.Errorf("walk directory: %w", unix.ENAMETOOLONG))
	}
	fd, err := unix.Openat(parent, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return nil // gone, or something else by now: another pass will see
	}
	if err != nil {
		return t.broken(rel, fmt.Errorf("open directory: %w", err))
	}
	// By this name the os package finds entries whose type readdir does not tell.
	dir := os.NewFile(uintptr(fd), fmt.Sprintf("/proc/self/fd/%d", fd))
	defer dir.Close()
	for {
		entries, err := dir.ReadDir(batch)
		for _, e := range entries {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := t.entry(ctx, fd, e, path.Join(rel, e.Name())); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return t.broken(rel, fmt.Errorf("read directory: %w", err))
		}
	}
}

func (t *tree) entry(ctx context.Context, dir int, e os.DirEntry, rel string) error {
	switch {
	case layout.Reserved(e.Name()):
		return nil
	case e.IsDir():
		return t.directory(ctx, dir, e.Name(), rel)
	case e.Type().IsRegular():
		return t.visit(dir, e.Name(), rel)
	default:
		return nil
	}
}

// reserved tells if an element of a path belongs to the program.
func reserved(rel string) bool {
	for element := range strings.SplitSeq(rel, "/") {
		if layout.Reserved(element) {
			return true
		}
	}
	return false
}
