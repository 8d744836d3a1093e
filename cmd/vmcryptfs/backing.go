package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"vmcryptfs/byname"
	"vmcryptfs/fs/backing"
	"vmcryptfs/fs/cryptfile"
)

// openBacking opens a regular file of BACKING for reading.
func openBacking(path string) (*cryptfile.OSFile, *unix.Stat_t, error) {
	b, st, err := backing.Open(unix.AT_FDCWD, path)
	if _, unfit := errors.AsType[*byname.UnfitError](err); unfit {
		err = fmt.Errorf("%s is not a regular file; name one", path)
	}
	return b, st, err
}

// regularFiles visits every regular file below the directory root, with the descriptor of the
// directory, the file's name in the directory, and the path below root. An unreadable directory
// ends the walk. The end of ctx also ends the walk, and the error is the cause of ctx.
func regularFiles(ctx context.Context, root string, visit func(dir int, name, at string) error) error {
	fd, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: root, Err: err}
	}
	defer unix.Close(fd)
	located := func(at string, err error) error {
		if err == nil {
			return nil
		}
		return fmt.Errorf("%s: %w", filepath.Join(root, at), err)
	}
	w := backing.Walk{Root: fd, Broken: located, Visit: func(dir int, at string, e *backing.Entry) error {
		if e.Kind != unix.S_IFREG {
			return nil
		}
		return located(at, visit(dir, string(e.Name), at))
	}}
	err = w.All(ctx)
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return context.Cause(ctx)
	}
	return err
}
