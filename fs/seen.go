package fs

import (
	"errors"

	"golang.org/x/sys/unix"

	"vmcryptfs/fs/backing"
	"vmcryptfs/fs/cryptfile"
	"vmcryptfs/fs/move"
	"vmcryptfs/layout"
)

// looks is what a long backing file that is not open looks like, by no key.
type looks struct {
	encrypted bool
	move      layout.FileID // the mark of half a file; zero: none
	endBeside bool          // the other half has the end of the file
}

// seenForm remembers for stat what a long backing file looks like. The memory is right as long as
// the file is unchanged.
type seenForm struct {
	valid bool
	looks
	version backing.Stamp
}

// looksNow tells what a file that is not open looks like; st was just read from its descriptor. sure is
// false if the file's first bytes cannot be read now: then the answer is the last one, or follows
// from the class of the names. n is pinned, and n.Mu.
func (f *FS) looksNow(n *node, st *unix.Stat_t) (seen looks, sure bool) {
	if st.Size < layout.DataOffset {
		return looks{}, true
	}
	n.formMu.Lock()
	defer n.formMu.Unlock()
	if n.seen.valid && n.seen.version == backing.StampOf(st) {
		return n.seen.looks, true
	}
	seen, err := n.readLooks()
	switch {
	case err == nil:
		n.seen = seenForm{true, seen, backing.StampOf(st)}
		return seen, true
	case n.seen.valid:
		return n.seen.looks, false
	default: // class inspect, too: a file this long is no descriptor
		return looks{encrypted: f.known(n).Class != layout.Clear}, false
	}
}

// closed notes the form of a file just closed, for a time when the file cannot be read. n.Mu is
// held exclusively.
func (n *node) closed(form backing.Form) {
	n.formMu.Lock()
	if encrypted := form == backing.Encrypted; !n.seen.valid || n.seen.encrypted != encrypted {
		n.seen = seenForm{valid: true, looks: looks{encrypted: encrypted}}
	}
	n.formMu.Unlock()
	if n.written.Load() { // so a foreign write could have gone undetected
		n.readSince(backing.Stamp{})
	}
}

// readLooks reads what the backing file looks like. n is pinned, and n.Mu.
func (n *node) readLooks() (looks, error) {
	fd, err := n.openBacking(n.FD(), unix.O_RDONLY)
	if err != nil {
		return looks{}, err
	}
	b := cryptfile.NewOSFile(fd)
	defer b.Close()
	return looksOf(b)
}

// looksOf is what the backing file b looks like. A header that no program could read bears no mark.
func looksOf(b *cryptfile.OSFile) (looks, error) {
	encrypted, err := cryptfile.IsEncrypted(b)
	if err != nil || !encrypted {
		return looks{}, err
	}
	seen := looks{encrypted: true}
	slots, err := cryptfile.ReadHeader(b)
	switch {
	case errors.Is(err, layout.ErrDamaged), errors.Is(err, layout.ErrUnsupported):
		return seen, nil
	case err != nil:
		return seen, err
	}
	seen.move = slots.Header.Mark
	if slots.Header.Marked() {
		r, err := move.Seem(b, slots.Header)
		seen.endBeside = err == nil && r.Kind == layout.MoveDecrypt && r.Watermark != layout.AllInSource
	}
	return seen, nil
}

// openBacking opens the backing file of fd, an O_PATH descriptor.
func (n *node) openBacking(fd, flags int) (int, error) {
	return n.Sparing(func() (int, error) { return backing.Reopen(fd, flags) })
}
