package fs

import (
	"errors"
	"fmt"
	"log/slog"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"vmcryptfs/fs/backing"
	"vmcryptfs/fs/content"
	"vmcryptfs/layout"
)

// Late binding (design §4): a file of class inspect is encrypted until its content proves to be a
// VMDK descriptor. A descriptor is encrypted again before a write turns the content into anything
// else.

// change is a change of a file's content.
type change struct {
	// edit gives the text of a descriptor after the change, and may alter text. Bytes after
	// layout.MaxDescriptor + 1 do not matter.
	edit func(text []byte) []byte
	// apply makes the change.
	apply func(content.Content) error
	by    fuse.Caller
	takes int64 // bytes of BACKING that the change may need
}

// change makes the change c to the content of n, which is open for writing.
func (f *FS) change(cancel <-chan struct{}, n *node, c change) error {
	n.Mu.RLock()
	if n.file == nil {
		n.Mu.RUnlock()
		return unix.EBADF
	}
	if n.file.Form == backing.Descriptor {
		n.Mu.RUnlock()
		return f.changeDescriptor(cancel, n, c)
	}
	defer n.Mu.RUnlock()
	return f.apply(n, c)
}

// wrote notes, after a change, that the content has to be judged again. n.Mu is held.
func (n *node) wrote() {
	if !n.written.Load() {
		n.written.Store(true)
	}
	if n.file.Form == backing.Encrypted && !n.unsettled.Load() {
		n.unsettled.Store(true)
	}
}

// changeDescriptor makes a change to a cleartext descriptor, having encrypted the file first if the
// change makes something else of the descriptor.
func (f *FS) changeDescriptor(cancel <-chan struct{}, n *node, c change) error {
	done, err := f.changeAsIs(n, c)
	if done || err != nil {
		return err
	}
	err = f.withNames(cancel, n, func() error {
		return f.withKey(cancel, f.placeOf(n), func(k *fileKey) error { return f.encryptAndChange(n, c, k) })
	})
	if errors.Is(err, errLinks) {
		f.keepClear(n, err)
	}
	return err
}

// changeAsIs makes the change if n keeps its form.
func (f *FS) changeAsIs(n *node, c change) (done bool, err error) {
	n.Mu.Lock()
	defer n.Mu.Unlock()
	stays, err := n.staysDescriptor(c)
	if err != nil || !stays {
		return false, err
	}
	return true, f.apply(n, c)
}

func (f *FS) encryptAndChange(n *node, c change, k *fileKey) error {
	f.names.Lock()
	defer f.names.Unlock()
	n.Mu.Lock()
	defer n.Mu.Unlock()
	stays, err := n.staysDescriptor(c)
	switch {
	case err != nil:
		return err
	case stays:
		return f.apply(n, c)
	}
	if err := f.encrypt(n, k); errors.Is(err, errOldKey) || errors.Is(err, errLinks) {
		return err
	} else if err != nil {
		f.keepClear(n, err)
		return fmt.Errorf("encrypt a cleartext descriptor before it becomes something else: %w", err)
	}
	return f.apply(n, c)
}

// keepClear logs a write refused because n could not be encrypted first. An error of BACKING is
// logged elsewhere (blame).
func (f *FS) keepClear(n *node, err error) {
	var errno unix.Errno
	if errors.As(err, &errno) && f.blame("write", errno, err) != "" {
		return
	}
	f.refuse(n, keptClear, "a cleartext descriptor would become something else, and cannot be encrypted", "error", err)
}

// apply makes the change. n.Mu is held, exclusively if n is a descriptor in clear.
func (f *FS) apply(n *node, c change) error {
	if n.file == nil {
		return unix.EBADF
	}
	err := f.charge(&n.Inode, n.FD(), c.by, c.takes, func() error { return c.apply(n.file.Content) })
	n.wrote()
	return f.failed(n, err)
}

// staysDescriptor reports whether n keeps its form with the change: n is no cleartext descriptor,
// or will still be one. n.Mu is held exclusively.
func (n *node) staysDescriptor(c change) (bool, error) {
	if n.file == nil || n.file.Form != backing.Descriptor {
		return true, nil
	}
	size, err := n.file.Size()
	if err != nil || size > layout.MaxDescriptor {
		return false, err
	}
	text, err := readAll(n.file, size)
	if err != nil {
		return false, err
	}
	return layout.IsDescriptor(c.edit(text)), nil
}

// overlay is text with p written at off.
func overlay(text, p []byte, off int64) []byte {
	if off > layout.MaxDescriptor {
		return resize(text, layout.MaxDescriptor+1)
	}
	p = p[:min(int64(len(p)), layout.MaxDescriptor+1-off)]
	if end := off + int64(len(p)); end > int64(len(text)) {
		text = resize(text, end)
	}
	copy(text[off:], p)
	return text
}

// resize is text cut, or filled with zeros, to size.
func resize(text []byte, size int64) []byte {
	size = min(size, layout.MaxDescriptor+1)
	if size <= int64(len(text)) {
		return text[:size]
	}
	return append(text, make([]byte, size-int64(len(text)))...)
}

// zeroed is text with zeros in [off, off+n). With grow, text grows to off+n if shorter.
func zeroed(text []byte, off, n int64, grow bool) []byte {
	end := min(off+n, layout.MaxDescriptor+1)
	if grow && end > int64(len(text)) {
		text = resize(text, end)
	}
	if end = min(end, int64(len(text))); off < end {
		clear(text[off:end])
	}
	return text
}

// settle gives n the clear form if n has become a descriptor. If the conversion fails, n stays
// encrypted, with one line in the log: no data are lost. A close(2) finds the form settled although
// the release of an earlier handle, for which nobody waits, may be at it.
func (f *FS) settle(n *node) {
	n.settling.Lock()
	defer n.settling.Unlock()
	if !n.unsettled.Load() || f.readOnly.Load() || !f.store.Verified() {
		return
	}
	n.Mu.RLock()
	bind, err := f.isDescriptor(n)
	n.Mu.RUnlock()
	if err == nil && bind {
		err = f.bind(n)
	}
	if err == nil {
		if bind {
			f.told.over(n.toldFile(), keptEncrypted)
		}
		return
	}
	n.unsettled.Store(true) // the next flush, fsync or close tries again
	f.tell(n, keptEncrypted, slog.LevelWarn, "a descriptor stays encrypted", "error", err)
}

// bind converts n if n still is a descriptor.
func (f *FS) bind(n *node) error {
	f.names.Lock()
	defer f.names.Unlock()
	n.Mu.Lock()
	defer n.Mu.Unlock()
	bind, err := f.isDescriptor(n)
	if err != nil || !bind {
		return err
	}
	return f.decrypt(n, backing.Descriptor)
}

// isDescriptor reports whether n is encrypted, has one link and class inspect, and holds a
// descriptor. If only another write can change the answer, isDescriptor clears n.unsettled. n.Mu is
// held.
func (f *FS) isDescriptor(n *node) (bool, error) {
	if n.file == nil || n.file.Form != backing.Encrypted || n.file.Pair() != nil {
		return false, nil
	}
	size, err := n.file.Size()
	if err != nil || size == 0 || size > layout.MaxDescriptor {
		return false, err
	}
	if f.strictest(n).Class != layout.Inspect {
		n.unsettled.Store(true) // the stricter name may go without a write
		return false, nil
	}
	var st unix.Stat_t
	if err := unix.Fstat(n.FD(), &st); err != nil || st.Nlink != 1 {
		return false, err
	}
	n.unsettled.Store(false) // before reading: a later write sets it again
	text, err := readAll(n.file, size)
	return err == nil && layout.IsDescriptor(text), err
}

// readAll reads a short file whole, and leaves the access time.
func readAll(c content.Content, size int64) ([]byte, error) {
	p := make([]byte, size)
	n, err := c.PeekAt(p, 0)
	return p[:n], err
}
