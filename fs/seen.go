package fs

import (
	"golang.org/x/sys/unix"

	"vmcryptfs/fs/backing"
	"vmcryptfs/layout"
)

// seenForm remembers for stat that a long backing file is encrypted or not, for sure as
// long as nobody changed it.
type seenForm struct {
	valid     bool
	encrypted bool
	version   backing.Stamp
}

// looksEncrypted tells for a file that is not open, with st just read from its
// descriptor, if its length is that of an encrypted one. Not sure: its first bytes cannot
// be read now, and it is what it last was, or what its names ask for.
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
	default: // a descriptor is shorter
		return f.known(n).Class != layout.Clear, false
	}
}

// closed notes the form of a file that is not open any more, for a time when it cannot be
// read. n.mu is held exclusively.
func (n *node) closed(form backing.Form) {
	n.formMu.Lock()
	if encrypted := form == backing.Encrypted; !n.seen.valid || n.seen.encrypted != encrypted {
		n.seen = seenForm{valid: true, encrypted: encrypted}
	}
	n.formMu.Unlock()
	if n.written.Load() { // and so others could have written it unseen
		n.readSince(backing.Stamp{})
	}
}

// hasMagic reads the first bytes of the backing file. n is held, and n.mu.
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

// openBacking opens the backing file that fd, an O_PATH descriptor, stands for.
func (n *node) openBacking(fd, flags int) (int, error) {
	return n.Sparing(func() (int, error) { return backing.Reopen(fd, flags) })
}
