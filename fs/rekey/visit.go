package rekey

import (
	"context"
	"fmt"
	"path"
	"slices"

	"vmcryptfs/fs/backing"
	"vmcryptfs/fs/cryptfile"
	"vmcryptfs/keys"
	"vmcryptfs/layout"
)

// visit brings the file name in dir under the KEK that it shall have, and counts it.
func (r *run) visit(ctx context.Context, dir int, name, rel string) error {
	b, err := backing.OpenFound(dir, name)
	if err != nil || b == nil {
		r.done++
		return r.note(ctx, rel, passed, err)
	}
	defer b.Close()
	done, err := r.file(ctx, b, name, rel)
	r.done++
	if err := r.note(ctx, rel, done, err); err != nil {
		return err
	}
	return r.visitCompanion(ctx, dir, b, rel)
}

// visitCompanion visits the companion of the move whose carrier b is, where the file itself was
// named: the walk of a directory finds the companion anyway.
func (r *run) visitCompanion(ctx context.Context, dir int, b *cryptfile.OSFile, rel string) error {
	if !slices.Contains(r.paths, rel) {
		return nil
	}
	slots, err := cryptfile.ReadHeader(b)
	if err != nil || !slots.Header.Marked() { // clear, or damage that is told already
		return nil
	}
	name := layout.MoveName(slots.Header.Mark)
	return r.visit(ctx, dir, name, path.Join(path.Dir(rel), name))
}

// file brings the file b under the KEK that its place wants.
func (r *run) file(ctx context.Context, b *cryptfile.OSFile, name, rel string) (done outcome, err error) {
	encrypted, err := backing.IsEncrypted(b)
	switch {
	case err != nil:
		return passed, err
	case !encrypted && isCompanion(name): // a part of a file that is counted by its carrier
		return passed, nil
	case !encrypted:
		return cleartext, nil
	}
	cache, target := r.config.Keys, r.goal.target
	ref, own := r.aim.ofFile(rel)
	if target == nil || sameKey(ref, keys.Ref{Provider: target.Provider, ID: target.ID}) {
		return r.goal.file(ctx, cache, b)
	}
	begun := false
	err = cache.UseForNew(ctx, ref, func(kek *keys.KEK) (err error) {
		begun = true
		done, err = goal{kek, r.goal.drop}.file(ctx, cache, b)
		return err
	})
	switch {
	case err == nil || begun:
		return done, err
	case own && r.whole() && isUnder(b, ref, r.goal.drop):
		// The datastore's files go on where the key of one place is away.
		return already, nil
	}
	return passed, fmt.Errorf("the KEK of its place: %w", err)
}

// isUnder reports whether the header of b names ref, no other key of its provider, and none of the
// provider drop. Nothing is proven.
func isUnder(b cryptfile.Backing, ref keys.Ref, drop string) bool {
	slots, err := cryptfile.ReadHeader(b)
	if err != nil || slots.Differ {
		return false
	}
	found := false
	for i := range slots.Header.Lockers {
		l := &slots.Header.Lockers[i]
		switch {
		case l.Wrap != layout.WrapKMIP:
		case l.Provider == ref.Provider && l.KeyID == ref.ID:
			found = true
		case l.Provider == ref.Provider || drop != "" && l.Provider == drop:
			return false
		}
	}
	return found
}
