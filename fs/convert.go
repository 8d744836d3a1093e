package fs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"

	"golang.org/x/sys/unix"

	"vmcryptfs/fs/backing"
	"vmcryptfs/fs/content"
	"vmcryptfs/fs/cryptfile"
)

// maxConvert is the greatest logical size, in bytes, of a file that is converted while other
// requests wait. The caller copies a longer file (EXDEV).
const maxConvert = 1 << 20

// errLinks: not all names of a file are known, and a conversion would part the names.
var errLinks = fmt.Errorf("has names that are not known, or too many, which a change of form would part: %w", unix.EACCES)

// source is a file's content as an io.ReaderAt.
type source struct{ content.Content }

func (s source) ReadAt(p []byte, off int64) (int, error) {
	n, err := s.Content.PeekAt(p, off)
	if err == nil && n < len(p) {
		err = io.EOF
	}
	return n, err
}

// encrypt gives n, open in clear or empty, the encrypted form. FS.names and n.Mu are held
// exclusively.
func (f *FS) encrypt(n *node, k *fileKey) error {
	if err := f.checkKey(k); err != nil {
		return err
	}
	var src io.ReaderAt = bytes.NewReader(nil)
	var size int64
	if n.file != nil {
		var err error
		if size, err = n.file.Size(); err != nil {
			return err
		}
		src = source{n.file.Content}
	}
	return f.replace(n, func(c cryptfile.Conversion, d *formDir) (cryptfile.Backing, error) {
		d.open = func() (*content.File, error) {
			return f.encrypted(n, d.file, k.take(), content.Intent{Read: true, Write: true}, false)
		}
		return c.ToEncrypted(src, size, k.header, k.dek)
	})
}

// decrypt gives n, open and encrypted, the clear form: Clear or Descriptor. FS.names and n.Mu are
// held exclusively.
func (f *FS) decrypt(n *node, form backing.Form) error {
	size, err := n.file.Size()
	if err != nil {
		return err
	}
	return f.replace(n, func(c cryptfile.Conversion, d *formDir) (cryptfile.Backing, error) {
		d.open = func() (*content.File, error) {
			return content.OpenClear(d.file, form, content.Intent{Read: true, Write: true}), nil
		}
		return c.ToClear(source{n.file.Content}, size)
	})
}

// replace runs a conversion at all names of n, or of a removed file at no name, and makes the other
// form n's. After an error n has either form, and n agrees with its file.
func (f *FS) replace(n *node, run func(cryptfile.Conversion, *formDir) (cryptfile.Backing, error)) error {
	if n.moving.Load() != nil {
		return ErrMoving
	}
	var st unix.Stat_t
	if err := unix.Fstat(n.FD(), &st); err != nil {
		return err
	}
	d := &formDir{from: n.FD(), key: backing.KeyOf(&st), parent: f.store.Fd()}
	name := ""
	if d.nameless = st.Nlink == 0; !d.nameless {
		names := f.pinnedNames(n, d.key)
		defer unpinAll(names)
		switch known := uint64(len(names)); {
		case st.Nlink > 1 && (known < uint64(st.Nlink) || known > mostFormNames):
			return errLinks
		case known == 0:
			return fmt.Errorf("no known name leads to %s any more: %w", f.path(n), unix.EIO)
		}
		d.parent, name = names[0].Dir.FD(), names[0].Name
		if st.Nlink > 1 {
			d.others = f.otherNames(names[1:])
		}
	}
	return f.convert(n, d, name, func(c cryptfile.Conversion) (cryptfile.Backing, error) { return run(c, d) })
}

// convert runs a conversion and takes up the new form. Everything that may fail for want of
// descriptors or memory is got before the other form gets the name; from then on the node must not
// go on with the old form.
func (f *FS) convert(n *node, d *formDir, name string, run func(cryptfile.Conversion) (cryptfile.Backing, error)) error {
	c := cryptfile.Conversion{Dir: d, Temp: f.temps.name(), Name: name, Prepare: d.prepare}
	var b cryptfile.Backing
	err := f.chargeOwner(n, func() (err error) {
		b, err = run(c)
		return err
	})
	if b == nil {
		return errors.Join(err, d.abandon())
	}
	if err != nil { // the directory could not be synced: after a crash the name may lead to either
		f.tell(n, notSynced, slog.LevelWarn, "a file changed its form, and its directory could not be synced", "error", err)
	} else {
		discard(n.FD())
	}
	f.part(n, d.parted)
	f.counts.conversions.Add(1)
	return errors.Join(err, d.closeDir(), f.exchange(n, d))
}

// part notes the names of n lost to the old form.
func (f *FS) part(n *node, parted []partedName) {
	for _, p := range parted {
		f.log.Warn("a file changed its form, and one of its names still leads to what it was", "file", f.pathAt(p.at), "error", p.err)
		f.table.FoundGone(p.at)
	}
}

// exchange puts the new form, which d made, in the place of n's old one. The handles and the inode
// number shown carry on. An error is that of closing the old form.
func (f *FS) exchange(n *node, d *formDir) error {
	n.Succeed(d.path, d.made, f.table.BirthOf(d.path))
	n.mode.Store(d.mode)
	n.written.Store(true)
	n.generation++

	old, file := n.file, d.content
	n.setFile(nil)
	if old == nil {
		n.closed(file.Form)
		return file.Close()
	}
	file.Inherit(old)
	file.CountReads()
	f.counts.opened(file.Form, +1)
	f.counts.opened(old.Form, -1)
	n.setFile(file)
	f.lessen(n)
	return old.Close()
}

// discard empties a backing file without a name, kept for its number.
func discard(fd int) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Nlink > 0 {
		return
	}
	if file, err := backing.Reopen(fd, unix.O_WRONLY); err == nil {
		unix.Ftruncate(file, 0) // a failure only costs space until the file is forgotten
		unix.Close(file)
	}
}

// giveForm gives an empty file, about to be written, the form of its class.
func (f *FS) giveForm(cancel <-chan struct{}, n *node) error {
	err := f.withNames(cancel, n, func() error {
		return f.withKey(cancel, f.placeOf(n), func(k *fileKey) error { return f.giveEncrypted(n, k) })
	})
	if errors.Is(err, errLinks) {
		f.refuse(n, formless, "an empty file has no form yet", "error", err)
	}
	return err
}

func (f *FS) giveEncrypted(n *node, k *fileKey) error {
	f.names.Lock()
	defer f.names.Unlock()
	n.Mu.Lock()
	defer n.Mu.Unlock()
	var st unix.Stat_t
	if err := unix.Fstat(n.FD(), &st); err != nil || st.Size > 0 {
		return err // nil: another request was faster
	}
	if err := f.encrypt(n, k); err != nil {
		return fmt.Errorf("give %s its form: %w", f.path(n), err)
	}
	return nil
}
