package rekey

import (
	"context"

	"vmcryptfs/fs/backing"
	"vmcryptfs/fs/cryptfile"
	"vmcryptfs/keys"
)

// outcome is the result for one name in BACKING.
type outcome uint8

const (
	passed    outcome = iota // not a regular file, or the file is gone
	cleartext                // not encrypted
	already                  // nothing to do
	rekeyed
)

// file brings the encrypted file b, open for reading, under the goal.
func (p goal) file(ctx context.Context, cache *keys.Cache, b *cryptfile.OSFile) (outcome, error) {
	if p.isDone(ctx, cache, b) {
		return already, nil
	}
	// Only a file with a change to make is opened for writing: an immutable file without a change
	// is not rekey's business, and overlayfs copies up a file opened for writing.
	w, err := backing.OpenToWrite(b)
	if err != nil {
		return passed, err
	}
	defer w.Close()
	unlock, err := w.LockHeader(ctx)
	if err != nil {
		return passed, err
	}
	defer unlock()
	return p.update(ctx, cache, w)
}

// isDone reports whether the header of b surely is under the goal. The header need not be locked.
func (p goal) isDone(ctx context.Context, cache *keys.Cache, b cryptfile.Backing) bool {
	slots, err := cryptfile.ReadHeader(b)
	if err != nil || slots.Differ {
		return false
	}
	c, err := p.next(slots.Header)
	if err != nil || !c.nothing() {
		return false
	}
	if p.target == nil {
		return true
	}
	dek, err := p.open(ctx, cache, slots.Header, &c)
	if err != nil {
		return false
	}
	dek.Wipe()
	return c.nothing()
}

// update brings the header of b under the goal, with the header locked.
func (p goal) update(ctx context.Context, cache *keys.Cache, b cryptfile.Backing) (outcome, error) {
	slots, err := cryptfile.ReadHeader(b)
	if err != nil {
		return passed, err
	}
	c, err := p.next(slots.Header)
	if err != nil {
		return passed, err
	}
	if p.target == nil && c.nothing() && !slots.Differ {
		return already, nil
	}
	dek, err := p.open(ctx, cache, slots.Header, &c)
	if err != nil {
		return passed, err
	}
	defer dek.Wipe()
	if c.nothing() {
		if !slots.Differ {
			return already, nil
		}
		// An update was cut off: the other slot may hold the old wrap.
		return rekeyed, cryptfile.Heal(b, slots)
	}
	if err := p.keepsOpening(ctx, cache, slots.Header, &c); err != nil {
		return passed, err
	}
	if c.wrap {
		if err := p.target.Wrap(&c.header, c.locker, dek); err != nil {
			return passed, err
		}
	}
	return rekeyed, cryptfile.UpdateHeader(b, slots, &c.header, dek)
}
