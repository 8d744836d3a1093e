package rekey

import (
	"context"
	"fmt"

	"golang.org/x/sys/unix"

	"vmcryptfs/fs/backing"
	"vmcryptfs/layout"
)

// scan reads the header of every encrypted file in the datastore whose BACKING is open as root,
// without any key. scan calls each with the header, or with the error of reading a valid one. An
// error of each ends the walk.
func scan(ctx context.Context, root int, each func(rel string, s layout.Slots, err error) error) error {
	w := files(root, func(dir int, name, rel string) error {
		s, encrypted, err := scanFile(ctx, dir, name)
		if !encrypted && err == nil {
			return nil
		}
		return each(rel, s, err)
	})
	w.Broken = func(rel string, err error) error { return each(rel, layout.Slots{}, err) }
	return w.All(ctx)
}

// scanFile reads the header of one file. encrypted is false for a file without a header.
func scanFile(ctx context.Context, dir int, name string) (s layout.Slots, encrypted bool, err error) {
	b, err := backing.OpenFound(dir, name)
	if err != nil || b == nil {
		return layout.Slots{}, false, err
	}
	defer b.Close()
	if encrypted, err = backing.IsEncrypted(b); err != nil || !encrypted {
		return layout.Slots{}, false, err
	}
	if s, err = backing.ReadHeader(ctx, b); err != nil {
		return layout.Slots{}, true, fmt.Errorf("read header: %w", err)
	}
	return s, true, nil
}

// files is a walk over the regular files below root. visit gets the directory, the name in the
// directory and the path below BACKING. Names that belong to the program are left out.
// Companions of moves hold a part of a file, and are left in.
func files(root int, visit func(dir int, name, rel string) error) backing.Walk {
	return backing.Walk{Root: root, Visit: func(dir int, rel string, e *backing.Entry) error {
		name := string(e.Name)
		if e.Kind != unix.S_IFREG || layout.Reserved(name) && !isCompanion(name) {
			return nil
		}
		return visit(dir, name, rel)
	}}
}

// isCompanion reports whether name is that of a companion of a move, also while its carrier is
// removed.
func isCompanion(name string) bool {
	_, _, ok := layout.ParseMoveName(name)
	return ok
}
