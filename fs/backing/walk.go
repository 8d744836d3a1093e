package backing

import (
	"context"
	"errors"
	"fmt"
	"path"

	"golang.org/x/sys/unix"

	"vmcryptfs/layout"
)

// Walk visits what lies below a directory, mostly BACKING itself, by descriptors: no symbolic
// link is followed, and a directory that is moved meanwhile is walked where it goes. The
// program's own directory at the top is left out. Other reserved names are visited, and not
// entered. What disappears meanwhile is passed over.
type Walk struct {
	Root int // descriptor of the directory; the caller's

	// Visit is called with each entry, the descriptor of the directory that holds the entry,
	// and the path below Root. e and its Name are valid during the call. Kind is filled in also
	// where the file system does not say it. An error ends the walk.
	Visit func(dir int, at string, e *Entry) error

	// Broken is told of a directory that cannot be walked, or only in part; an error of Broken
	// ends the walk. Nil: a directory below Root that this process may not read is passed over,
	// and so is one that is too deep. Any other error ends the walk.
	Broken func(at string, err error) error
}

// All visits everything below Root. Its error is that of ctx, Visit, Broken or Root.
func (w *Walk) All(ctx context.Context) error { return w.directory(ctx, w.Root, ".", ".") }

// From visits what is at the path at, which is clean and leads below Root: a regular file alone,
// or a directory and what lies below it; "." is Root. A path that leads nowhere, over a symbolic
// link, or to anything else is an error.
func (w *Walk) From(ctx context.Context, at string) error {
	if at == "." {
		return w.All(ctx)
	}
	parent, name := path.Split(at)
	dir, err := w.openBeneath(path.Clean(parent))
	if err != nil {
		return fmt.Errorf("%s: %w", at, err)
	}
	defer unix.Close(dir)
	var st unix.Stat_t
	if err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("%s: %w", at, err)
	}
	switch kind := st.Mode & unix.S_IFMT; kind {
	case unix.S_IFDIR:
		return w.directory(ctx, dir, name, at)
	case unix.S_IFREG:
		return w.Visit(dir, at, &Entry{Dev: st.Dev, Ino: st.Ino, Kind: kind, Name: []byte(name)})
	default:
		return fmt.Errorf("%s: neither a regular file nor a directory", at)
	}
}

// openBeneath opens a directory with no symbolic link on the way (openat2(2)).
func (w *Walk) openBeneath(at string) (int, error) {
	return unix.Openat2(w.Root, at, &unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	})
}

// directory walks the directory name in parent. Each level takes a descriptor and a buffer, and
// whoever may make directories can nest directories without end. So a walk ends where PATH_MAX
// does: from there on nothing can be called by its path.
func (w *Walk) directory(ctx context.Context, parent int, name, at string) error {
	if len(at) >= unix.PathMax {
		return w.broken(at, fmt.Errorf("walk directory: %w", unix.ENAMETOOLONG))
	}
	d, err := OpenDir(parent, name, unix.O_NOATIME)
	if gone(err) {
		return nil
	}
	if err != nil {
		return w.broken(at, fmt.Errorf("open directory: %w", err))
	}
	defer d.Close()
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		e, err := d.Read()
		if gone(err) {
			return nil
		}
		if err != nil {
			return w.broken(at, fmt.Errorf("read directory: %w", err))
		}
		if e == nil {
			return nil
		}
		if err := w.entry(ctx, d, e, at); err != nil {
			return err
		}
	}
}

// gone reports whether err says that a name leads to no directory any more.
func gone(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP)
}

// entry visits e, an entry of the directory d at the path in, and enters e if e is a directory.
func (w *Walk) entry(ctx context.Context, d *Dir, e *Entry, in string) error {
	name := string(e.Name)
	if name == "." || name == ".." || in == "." && name == layout.ReservedPrefix {
		return nil
	}
	if e.Kind == 0 {
		var st unix.Stat_t
		if err := unix.Fstatat(d.fd, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return nil // gone, or what nobody can say of
		}
		e.Kind = st.Mode & unix.S_IFMT
	}
	kind, at := e.Kind, path.Join(in, name)
	if err := w.Visit(d.fd, at, e); err != nil {
		return err
	}
	if kind != unix.S_IFDIR || layout.Reserved(name) {
		return nil
	}
	return w.directory(ctx, d.fd, name, at)
}

func (w *Walk) broken(at string, err error) error {
	if w.Broken != nil {
		return w.Broken(at, err)
	}
	if at != "." && (errors.Is(err, unix.EACCES) || errors.Is(err, unix.ENAMETOOLONG)) {
		return nil
	}
	return err
}
