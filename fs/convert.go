package fs

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"golang.org/x/sys/unix"

	"vmcryptfs/fs/cryptfile"
)

// maxConvert is the greatest logical size in bytes of a file that is converted while
// others wait; a longer one is copied by whoever wants it (EXDEV).
const maxConvert = 1 << 20

// errLinks: a conversion would part the names of a file.
var errLinks = fmt.Errorf("has several links, which a change of form would part: %w", unix.EACCES)

// source is a file's content as io.ReaderAt wants it.
type source struct{ content }

func (s source) ReadAt(p []byte, off int64) (int, error) {
	n, err := s.content.ReadAt(p, off)
	if err == nil && n < len(p) {
		err = io.EOF
	}
	return n, err
}

// encrypt gives n, which is open in clear or empty, its encrypted form; it takes over k.
// FS.names and n.mu are held exclusively.
func (f *FS) encrypt(n *node, k fileKey) error {
	if err := f.checkKey(k); err != nil {
		k.dek.Wipe()
		return err
	}
	var src io.ReaderAt = bytes.NewReader(nil)
	var size int64
	if n.file != nil {
		var err error
		if size, err = n.file.size(); err != nil {
			k.dek.Wipe()
			return err
		}
		src = source{n.file.content}
	}
	b, err := f.replace(n, func(c cryptfile.Conversion) (cryptfile.Backing, error) {
		return c.ToEncrypted(src, size, k.header, k.dek)
	})
	if b == nil {
		k.dek.Wipe()
		return err
	}
	file, openErr := f.encrypted(n, b, k.dek, true, false)
	if openErr != nil {
		return errors.Join(err, openErr)
	}
	return errors.Join(err, f.exchange(n, file))
}

// decrypt gives n, which is open and encrypted, the clear form. FS.names and n.mu are
// held exclusively.
func (f *FS) decrypt(n *node, descriptor bool) error {
	size, err := n.file.size()
	if err != nil {
		return err
	}
	b, err := f.replace(n, func(c cryptfile.Conversion) (cryptfile.Backing, error) {
		return c.ToClear(source{n.file.content}, size)
	})
	if b == nil {
		return err
	}
	form := formClear
	if descriptor {
		form = formDescriptor
	}
	return errors.Join(err, f.exchange(n, &openFile{
		content: &clearFile{OSFile: b}, backing: b, form: form, writable: true, descriptor: descriptor,
	}))
}

// replace runs a conversion at a name of n, or for a removed file at no name. The file
// returned is nil if n has its old form.
func (f *FS) replace(n *node, run func(cryptfile.Conversion) (cryptfile.Backing, error)) (*cryptfile.OSFile, error) {
	var st unix.Stat_t
	if err := unix.Fstat(n.fd, &st); err != nil {
		return nil, err
	}
	dir := &formDir{from: n.fd, key: keyOf(&st), parent: f.store.Fd()}
	name := ""
	switch {
	case st.Nlink > 1:
		return nil, errLinks
	case st.Nlink == 0:
		dir.nameless = true
	default:
		at, ok := f.findName(n, dir.key)
		if !ok {
			return nil, fmt.Errorf("no known name leads to %s any more: %w", f.path(n), unix.EIO)
		}
		dir.parent, name = at.parent.fd, at.name
	}
	c := cryptfile.Conversion{Dir: dir, Temp: f.temps.name(), Name: name, Prepare: dir.copyAttributes}
	b, err := run(c)
	if b == nil {
		return nil, err
	}
	if err != nil {
		f.log.Warn("a file changed its form, and its directory could not be synced", "file", f.path(n), "error", err)
	}
	f.counts.conversions.Add(1)
	return dir.file, nil
}

// findName is a known name that still is the backing inode key.
func (f *FS) findName(n *node, key inodeKey) (nameKey, bool) {
	names, _ := f.table.namesOf(n)
	for _, at := range names {
		var st unix.Stat_t
		err := unix.Fstatat(at.parent.fd, at.name, &st, unix.AT_SYMLINK_NOFOLLOW)
		if err == nil && keyOf(&st) == key {
			return at, true
		}
	}
	return nameKey{}, false
}

// exchange puts file, open on another backing inode, in the place of what n was. The
// handles and the inode number shown carry on.
func (f *FS) exchange(n *node, file *openFile) error {
	fd, err := unix.Open(procPath(file.backing.Fd()), unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return errors.Join(err, file.Close())
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return errors.Join(err, unix.Close(fd), file.Close())
	}
	discard(n.fd)
	if n.first < 0 {
		n.first = n.fd // kept, so that BACKING gives the number shown to nobody else
	} else {
		unix.Close(n.fd)
	}
	n.fd = fd
	n.mode.Store(st.Mode)
	n.written.Store(true)
	f.table.rekey(n, keyOf(&st))
	n.generation++

	old := n.file
	n.file = nil
	if old != nil {
		file.opens = old.opens
		f.counts.opened(old.form, -1)
		err = old.Close()
	}
	if file.opens == 0 {
		return errors.Join(err, file.Close())
	}
	f.counts.opened(file.form, +1)
	n.file = file
	return err
}

// discard empties a backing file that has no name any more: it is kept for its number.
func discard(fd int) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Nlink > 0 {
		return
	}
	if file, err := openBacking(fd, unix.O_WRONLY); err == nil {
		unix.Ftruncate(file, 0) // in vain only costs space until the file is forgotten
		unix.Close(file)
	}
}

// giveForm gives an empty file, which is to be written, the form of its class.
func (f *FS) giveForm(cancel <-chan struct{}, n *node) error {
	return f.withKey(cancel, func(k fileKey) error { return f.giveEncrypted(n, k) })
}

func (f *FS) giveEncrypted(n *node, k fileKey) error {
	f.names.Lock()
	defer f.names.Unlock()
	n.mu.Lock()
	defer n.mu.Unlock()
	var st unix.Stat_t
	if err := unix.Fstat(n.fd, &st); err != nil || st.Size > 0 {
		k.dek.Wipe() // somebody else was faster
		return err
	}
	if err := f.encrypt(n, k); err != nil {
		if errors.Is(err, errLinks) {
			f.log.Warn("refused: an empty file has no form yet", "file", f.path(n), "error", err)
		}
		return fmt.Errorf("give %s its form: %w", f.path(n), err)
	}
	return nil
}
