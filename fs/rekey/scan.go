package rekey

import (
	"context"
	"errors"
	"fmt"

	"vmcryptfs/fs/cryptfile"
	"vmcryptfs/layout"
)

// Scan reads the header of every encrypted file of the datastore whose BACKING is open
// as root, with no key: each gets it, or why there is none that counts. An error of
// each ends the walk.
func Scan(ctx context.Context, root int, each func(rel string, s layout.Slots, err error) error) error {
	t := tree{
		root: root,
		visit: func(dir int, name, rel string) error {
			s, encrypted, err := scanFile(dir, name)
			if !encrypted && err == nil {
				return nil
			}
			return each(rel, s, err)
		},
		broken: func(rel string, err error) error { return each(rel, layout.Slots{}, err) },
	}
	return t.walk(ctx, ".")
}

// scanFile reads the header of one file; encrypted is false for what has none.
func scanFile(dir int, name string) (s layout.Slots, encrypted bool, err error) {
	b, err := openFile(dir, name)
	if err != nil || b == nil {
		return layout.Slots{}, false, err
	}
	defer b.Close()
	if encrypted, err = isEncrypted(b); err != nil || !encrypted {
		return layout.Slots{}, false, err
	}
	s, err = cryptfile.ReadHeader(b)
	if errors.Is(err, layout.ErrDamaged) {
		// A rekey may have been at one slot as that was read, then at the other.
		s, err = cryptfile.ReadHeader(b)
	}
	if err != nil {
		return layout.Slots{}, true, fmt.Errorf("read header: %w", err)
	}
	return s, true, nil
}
