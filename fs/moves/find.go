package moves

import (
	"context"
	"errors"
	"fmt"
	"path"

	"golang.org/x/sys/unix"

	"vmcryptfs/fs/backing"
	"vmcryptfs/layout"
)

// Found is a file that bears the mark of a move.
type Found struct {
	ID   layout.FileID
	Path string // below BACKING
}

// find finds the files that bear marks, by a whole walk. An error says that some may be missing.
func (c *Config) find(ctx context.Context) (found []Found, err error) {
	if c.Find != nil {
		return c.Find(ctx)
	}
	w := backing.Walk{Root: c.Store.Fd(), Visit: func(dir int, at string, e *backing.Entry) error {
		if e.Kind != unix.S_IFREG || layout.Reserved(string(e.Name)) {
			return nil
		}
		mark, err := markIn(ctx, dir, string(e.Name))
		if err == nil && mark != (layout.FileID{}) {
			found = append(found, Found{mark, at})
		}
		return nil // a header that is damaged has no mark that counts
	}, Broken: func(at string, err error) error { return fmt.Errorf("%s: %w", at, err) }}
	err = w.All(ctx)
	return found, err
}

// markIn is the mark of the file name in a directory; zero for a file that has none.
func markIn(ctx context.Context, dir int, name string) (layout.FileID, error) {
	b, err := backing.OpenFound(dir, name)
	if err != nil || b == nil {
		return layout.FileID{}, err
	}
	defer b.Close()
	encrypted, err := backing.IsEncrypted(b)
	if err != nil || !encrypted {
		return layout.FileID{}, err
	}
	slots, err := backing.ReadHeader(ctx, b)
	if err != nil {
		return layout.FileID{}, err
	}
	return slots.Header.Mark, nil
}

// markOf is the mark of the file at a path below BACKING.
func (c *Config) markOf(ctx context.Context, at string) (mark layout.FileID, err error) {
	if layout.Reserved(path.Base(at)) {
		return mark, unix.EINVAL
	}
	w := backing.Walk{Root: c.Store.Fd(), Visit: func(dir int, _ string, e *backing.Entry) (err error) {
		if e.Kind != unix.S_IFREG {
			return unix.EINVAL
		}
		mark, err = markIn(ctx, dir, string(e.Name))
		return err
	}}
	err = w.From(ctx, at)
	if errors.Is(err, unix.ENOENT) {
		return layout.FileID{}, nil
	}
	return mark, err
}

// allowsClear reports whether the sealed policy gives clear for a path now.
func (c *Config) allowsClear(at string) bool {
	w, err := c.FS.WantedAt(at)
	return err == nil && w.Verdict.Class == layout.Clear
}
