package fs

import (
	"cmp"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"vmcryptfs/fs/backing"
	"vmcryptfs/fs/cryptfile"
	"vmcryptfs/fs/inode"
	"vmcryptfs/layout"
)

// Cleartext under a name that is encrypted: the reasons for a refusal.
var (
	errPlain     = fmt.Errorf("cleartext under a name that is encrypted: %w", unix.EACCES)
	errPlainSlot = fmt.Errorf("cleartext with a whole second header: %w", unix.EACCES)
)

// permitOpen decides whether n's open file gets another holder. Other hands may have given an open
// log the name of a memory image: the log is cleartext under that name, as if the log were not
// open. n.Mu is held.
func (f *FS) permitOpen(n *node, write bool) error {
	form := n.file.Form
	if !form.IsClear() || !stricter(f.strictest(n).Class, form.Class()) {
		return nil
	}
	return f.permitClear(n, n.file.Stored(), backing.Plain, write)
}

// permitClear decides whether a file in clear, or without a form, is served under the names of n.
func (f *FS) permitClear(n *node, b cryptfile.Backing, form backing.Form, write bool) error {
	switch form {
	case backing.Empty:
		if write {
			return errNoForm
		}
		return nil
	case backing.Clear, backing.Descriptor:
		return nil
	}
	encrypted, err := backing.IsEncrypted(b)
	switch {
	case encrypted, errors.Is(err, backing.ErrHidden): // encrypted: other hands wrote over it just now
		return errPlainSlot
	case err != nil:
		return err
	case f.unencrypted == Write, f.unencrypted == Read && !write, f.adopted(n):
		return nil
	default:
		return errPlain
	}
}

// refused passes on the error of an open. refused logs a refusal that does not follow from the
// file's mode and owner. No lock is held.
func (f *FS) refused(n *node, err error) error {
	switch {
	case errors.Is(err, errPlain), errors.Is(err, errPlainSlot):
		f.plain(n, err)
	case errors.Is(err, errAppendOnly), errors.Is(err, errWriteOnly):
		f.refuse(n, unwritable, "not to be written", "error", err)
	}
	return err
}

// plain counts and logs a refusal of cleartext, with the name that is encrypted. plain first looks
// the name up: a lost name counts for inode.LostFor and then no more. No lock is held.
func (f *FS) plain(n *node, err error) {
	f.counts.denied.Add(1)
	f.forgetStale(n)
	by := f.strictest(n)
	switch {
	case errors.Is(err, errPlainSlot):
		f.refuse(n, unencrypted, "cleartext under a name that is encrypted", "advice",
			"its first header is gone and the second is whole: vmcryptfs export can decrypt it")
	case by.lost:
		f.refuse(n, calledSo, "cleartext that had a name which is encrypted until a moment ago", "name", cmp.Or(by.at.Name, "one of many"),
			"advice", fmt.Sprintf("try again in %v", inode.LostFor))
	default:
		f.refuseName(n, by)
	}
}

// refuseName logs the refusal of n, which is in clear, for the name of the ruling by.
func (f *FS) refuseName(n *node, by ruling) {
	if !f.told.first(n.toldFile(), unencrypted) {
		return
	}
	file, advice := f.path(n), "copy it under its name while mounted with --unencrypted=read, or remove it"
	if names, _ := n.Names(); len(names) > 1 {
		advice = "remove this one of its names in BACKING"
	}
	if by.at.Dir != nil {
		file = f.pathAt(by.at)
	}
	f.log.Warn("refused: cleartext under a name that is encrypted", "file", file, "advice", advice)
}

// forgetStale looks up the known names of n that are encrypted: other hands may have taken the
// names in BACKING. No lock is held.
func (f *FS) forgetStale(n *node) {
	f.names.RLock()
	defer f.names.RUnlock()
	names, _ := n.Names()
	for _, at := range names {
		if f.verdict(at).Class == layout.Clear {
			continue
		}
		found, err := f.lookupAt(at)
		switch {
		case err == nil:
			f.table.Forget(found.ID, 1)
		case errors.Is(err, unix.ESTALE): // the directory is gone
			f.table.FoundGone(at)
		}
	}
}

// lookupAt is lookup in a directory that is not pinned. ESTALE: the directory is gone from BACKING.
func (f *FS) lookupAt(at inode.Place) (*node, error) {
	if err := at.Dir.Pin(); err != nil {
		return nil, err
	}
	defer at.Dir.Unpin()
	return f.lookup(at)
}
