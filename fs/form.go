package fs

import (
	"errors"

	"golang.org/x/sys/unix"

	"vmcryptfs/fs/cryptfile"
	"vmcryptfs/layout"
)

// form is what a backing file is.
type form uint8

const (
	formEmpty      form = iota // nothing yet: it gets the form of its class when it is written
	formEncrypted              // under whatever name
	formClear                  // cleartext under a name of class clear
	formDescriptor             // cleartext under a name of class inspect: a VMDK descriptor
	formPlain                  // cleartext where the class says encrypt
)

func (f form) String() string {
	switch f {
	case formEmpty:
		return "empty"
	case formEncrypted:
		return "encrypted"
	case formClear, formDescriptor:
		return "clear"
	default:
		return "unencrypted"
	}
}

// isClear tells if a file of this form is in clear by right.
func (f form) isClear() bool { return f == formClear || f == formDescriptor }

// class is the strictest one under which a file that is in clear by right may be had.
func (f form) class() layout.Class {
	if f == formDescriptor {
		return layout.Inspect
	}
	return layout.Clear
}

// judge tells the form of a regular backing file under a name: layout.ErrDamaged if it
// is none, or the backing file's error.
func judge(b cryptfile.Backing, v layout.Verdict) (form, error) {
	size, err := b.Size()
	if err != nil || size == 0 {
		return formEmpty, err
	}
	encrypted, err := cryptfile.IsEncrypted(b)
	switch {
	case err != nil:
		return formEmpty, err
	case encrypted:
		return formEncrypted, nil
	case v.Class == layout.Clear:
		return formClear, nil
	case v.Class == layout.Encrypt || size > layout.MaxDescriptor:
		return formPlain, nil
	}
	text := make([]byte, size)
	n, err := cryptfile.PeekAt(b, text, 0)
	switch {
	case err != nil:
		return formEmpty, err
	case layout.IsDescriptor(text[:n]):
		return formDescriptor, nil
	default:
		return formPlain, nil
	}
}

// readAll reads a short file whole, for ourselves.
func readAll(c content, size int64) ([]byte, error) {
	p := make([]byte, size)
	n, err := c.PeekAt(p, 0)
	return p[:n], err
}

// seenForm remembers for stat that a long backing file is encrypted or not, for sure as
// long as nobody changed it.
type seenForm struct {
	valid     bool
	encrypted bool
	version   stamp
}

// stamp tells two versions of a backing file apart.
type stamp struct {
	key          inodeKey
	size         int64
	mtime, ctime unix.Timespec
}

func stampOf(st *unix.Stat_t) stamp {
	return stamp{keyOf(st), st.Size, st.Mtim, st.Ctim}
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
	if n.seen.valid && n.seen.version == stampOf(st) {
		return n.seen.encrypted, true
	}
	encrypted, err := n.hasMagic()
	switch {
	case err == nil:
		n.seen = seenForm{true, encrypted, stampOf(st)}
		return encrypted, true
	case n.seen.valid:
		return n.seen.encrypted, false
	default: // a descriptor is shorter
		return f.known(n).Class != layout.Clear, false
	}
}

// closed notes the form of a file that is not open any more, for a time when it cannot be
// read. n.mu is held exclusively.
func (n *node) closed(form form) {
	n.formMu.Lock()
	if encrypted := form == formEncrypted; !n.seen.valid || n.seen.encrypted != encrypted {
		n.seen = seenForm{valid: true, encrypted: encrypted}
	}
	n.formMu.Unlock()
	if n.written.Load() { // and so others could have written it unseen
		n.readSince(stamp{})
	}
}

// hasMagic reads the first bytes of the backing file. n is held, and n.mu.
func (n *node) hasMagic() (bool, error) {
	file, err := n.table.openBacking(n.fd, unix.O_RDONLY)
	if err != nil {
		return false, err
	}
	defer unix.Close(file)
	var head [magicLen]byte
	_, err = unix.Pread(file, head[:], 0)
	return layout.HasMagic(head[:]), err
}

// openBacking opens the file that fd, an O_PATH descriptor, stands for, without leaving
// an access time where that is permitted (to its owner, and to root).
func openBacking(fd int, flags int) (int, error) {
	flags |= unix.O_CLOEXEC | unix.O_NONBLOCK
	file, err := unix.Open(procPath(fd), flags|unix.O_NOATIME, 0)
	if errors.Is(err, unix.EPERM) {
		return unix.Open(procPath(fd), flags, 0)
	}
	return file, err
}

// openBacking is the function of that name, sparing.
func (t *table) openBacking(fd, flags int) (int, error) {
	return t.fds.sparing(func() (int, error) { return openBacking(fd, flags) })
}

// known is the strictest ruling over the known names of n; of a node that lost them all, that
// of the last, and of one that never had any, encrypt.
func (f *FS) known(n *node) ruling {
	names, last := f.table.namesOf(n)
	if len(names) == 0 {
		if last == "" {
			return ruling{}
		}
		return ruling{Verdict: f.classify(last), name: last}
	}
	r := ruling{Verdict: f.classify(names[0].name), name: names[0].name, at: names[0]}
	for _, at := range names[1:] {
		if v := f.classify(at.name); stricter(v.Class, r.Class) {
			r = ruling{Verdict: v, name: at.name, at: at}
		}
	}
	return r
}

func stricter(a, b layout.Class) bool {
	rank := func(c layout.Class) int {
		switch c {
		case layout.Clear:
			return 0
		case layout.Inspect:
			return 1
		default:
			return 2
		}
	}
	return rank(a) > rank(b)
}
