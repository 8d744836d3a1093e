package fs

import (
	"golang.org/x/sys/unix"

	"vmcryptfs/fs/backing"
	"vmcryptfs/layout"
)

// seenForm remembers for stat whether a long backing file is encrypted. The memory is right as long
// as the file is unchanged.
type seenForm struct {
	valid     bool
	encrypted bool
	version   backing.Stamp
}

// looksEncrypted reports whether a file that is not open has the length of an encrypted one; st was
// just read from its descriptor. sure is false if the file's first bytes cannot be read now: then
// the answer is the last one, or follows from the class of the names. n is pinned, and n.Mu.
func (f *FS) looksEncrypted(n *node, st *unix.Stat_t) (encrypted, sure bool) {
	if st.Size < layout.DataOffset {
		return false, true
	}
	n.formMu.Lock()
	defer n.formMu.Unlock()
	if n.seen.valid && n.seen.version == backing.StampOf(st) {
		return n.seen.encrypted, true
	}
	encrypted, err := n.hasMagic()
	switch {
	case err == nil:
		n.seen = seenForm{true, encrypted, backing.StampOf(st)}
		return encrypted, true
	case n.seen.valid:
		return n.seen.encrypted, false
	default: // class inspect, too: a file this long is no descriptor
		return f.known(n).Class != layout.Clear, false
	}
}

// closed notes the form of a file just closed, for a time when the file cannot be read. n.Mu is
// held exclusively.
func (n *node) closed(form backing.Form) {
	n.formMu.Lock()
	if encrypted := form == backing.Encrypted; !n.seen.valid || n.seen.encrypted != encrypted {
		n.seen = seenForm{valid: true, encrypted: encrypted}
	}
	n.formMu.Unlock()
	if n.written.Load() { // so a foreign write could have gone undetected
		n.readSince(backing.Stamp{})
	}
}

// hasMagic reads the first bytes of the backing file. n is pinned, and n.Mu.
func (n *node) hasMagic() (bool, error) {
	file, err := n.openBacking(n.FD(), unix.O_RDONLY)
	if err != nil {
		return false, err
	}
	defer unix.Close(file)
	var head [len(layout.Magic)]byte
	_, err = unix.Pread(file, head[:], 0)
	return layout.HasMagic(head[:]), err
}

// openBacking opens the backing file of fd, an O_PATH descriptor.
func (n *node) openBacking(fd, flags int) (int, error) {
	return n.Sparing(func() (int, error) { return backing.Reopen(fd, flags) })
}
