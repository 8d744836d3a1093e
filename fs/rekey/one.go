package rekey

import (
	"context"

	"vmcryptfs/fs/backing"
	"vmcryptfs/keys"
)

// File brings the file name, one path element, in the directory dir under target, as Run does with each
// file: lockers of other providers stay. changed is false for a file that was so before, or that is not
// encrypted. Safe for concurrent use; the file may be open.
func File(ctx context.Context, cache *keys.Cache, target *keys.KEK, dir int, name string) (changed bool, err error) {
	b, err := backing.OpenFound(dir, name)
	if err != nil || b == nil {
		return false, err
	}
	defer b.Close()
	encrypted, err := backing.IsEncrypted(b)
	if err != nil || !encrypted {
		return false, err
	}
	done, err := goal{target: target}.file(ctx, cache, b)
	return done == rekeyed, err
}
