package moves

import (
	"context"
	"errors"
	"path"

	"golang.org/x/sys/unix"

	"vmcryptfs/fs"
	"vmcryptfs/fs/backing"
	"vmcryptfs/layout"
)

// find finds the files that bear marks, by a whole walk, which also ends begins that a crash cut off.
// An error says that some may be missing.
func (c *Config) find(ctx context.Context) ([]fs.FoundMove, error) {
	found, strays, err := c.FS.FindMoves(ctx)
	for _, at := range strays {
		c.Log.Warn("half of a moving file has no other half beside it: bring that back, as from a backup", "file", at)
	}
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
