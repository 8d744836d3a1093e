package backing

import (
	"context"
	"errors"
	"path"

	"golang.org/x/sys/unix"

	"vmcryptfs/layout"
)

// Walk visits what lies below the directory dir of BACKING, whose path is at, the
// program's own directory at the top left out. visit gets each entry with its directory;
// its error ends the walk. What disappears meanwhile is passed over, and so is what lies
// deeper than any path leads (descend).
func Walk(ctx context.Context, dir int, at string, visit func(dir int, at string, e Entry) error) error {
	s, err := OpenDir(dir, unix.O_NOATIME)
	if err != nil {
		return err
	}
	defer s.Close()
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		e, err := s.Read()
		if e == nil {
			return err
		}
		name := string(e.Name)
		if name == "." || name == ".." || at == "" && name == layout.ReservedPrefix {
			continue
		}
		if err := visit(s.Fd, path.Join(at, name), *e); err != nil {
			return err
		}
		if err := descend(ctx, s.Fd, name, path.Join(at, name), e.Kind, visit); err != nil {
			return err
		}
	}
}

// descend walks name if it is a directory. Each level takes descriptors and a buffer, and
// whoever may make directories can nest them without end, so a walk ends where PATH_MAX
// does: from there on nothing can be called by its path.
func descend(ctx context.Context, dir int, name, at string, kind uint32, visit func(int, string, Entry) error) error {
	if kind != unix.S_IFDIR && kind != 0 || len(at) >= unix.PathMax {
		return nil
	}
	fd, err := unix.Openat(dir, name, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
			return nil
		}
		return err
	}
	defer unix.Close(fd)
	err = Walk(ctx, fd, at, visit)
	if errors.Is(err, unix.EACCES) || errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}
