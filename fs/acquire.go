package fs

import (
	"errors"
	"log/slog"

	"golang.org/x/sys/unix"

	"vmcryptfs/fs/backing"
	"vmcryptfs/fs/content"
	"vmcryptfs/fs/cryptfile"
	"vmcryptfs/keys"
	"vmcryptfs/layout"
)

// errNoForm: an empty file needs a form before a write.
var errNoForm = errors.New("empty file has no form yet")

// acquire opens n's content, or shares the open content; release, with the same want.write, gives
// it back. Closing cancel ends a wait for a key, and no other wait.
func (f *FS) acquire(cancel <-chan struct{}, n *node, want content.Intent) error {
	if want.Write && f.readOnly.Load() {
		return unix.EROFS
	}
	if err := n.Pin(); err != nil {
		return err
	}
	defer n.Unpin()
	return f.refused(n, f.take(cancel, n, want))
}

// take is acquire of n, which is pinned.
func (f *FS) take(cancel <-chan struct{}, n *node, want content.Intent) error {
	for {
		shared, judged, err := f.share(n, want)
		if shared || err != nil {
			return err
		}
		file, err := f.openContent(cancel, n, want)
		again := true
		switch {
		case errors.Is(err, errNoForm):
			err = f.giveForm(cancel, n)
		case errors.Is(err, errMoveOver):
			err = f.endFound(cancel, n)
		default:
			again = false
		}
		if err != nil {
			return err
		}
		if again {
			continue
		}
		if installed, err := f.install(n, file, judged, want.Write); installed {
			return err
		}
	}
}

// moment is the moment at which a file was judged. At another moment the file may have another
// form.
type moment struct {
	generation uint64         // of the node
	rules      *layout.Places // that held
}

// share takes part in the open file if the file will do for want and n's names permit. share waits
// for other users of the file only to exchange the descriptor, or to repair the header.
func (f *FS) share(n *node, want content.Intent) (shared bool, judged moment, err error) {
	n.Mu.RLock()
	judged = moment{n.generation, f.rules()}
	adaptable := n.file != nil && n.file.Adaptable(want)
	if adaptable {
		err = f.permitOpen(n, want.Write)
		shared = err == nil && n.file.Serves(want) && n.file.Share(want.Write)
	}
	n.Mu.RUnlock()
	if shared || err != nil || !adaptable {
		return shared, judged, err
	}
	n.Mu.Lock()
	defer n.Mu.Unlock()
	if now := (moment{n.generation, f.rules()}); now != judged || n.file == nil { // judge anew
		return false, now, nil
	}
	if !n.file.Can.Covers(want) {
		if err := f.adapt(n, want); err != nil {
			return false, judged, err
		}
	}
	if want.Write {
		if err := n.file.Heal(); err != nil {
			f.lessen(n)
			return false, judged, f.damaged(n, err)
		}
	}
	n.file.Join(want.Write)
	return true, judged, nil
}

// install makes file n's file. The holders are those of the replaced file, and one more, with or
// without the right to write. n is pinned. install fails, and closes file, if the node or the rules
// changed since file was judged.
func (f *FS) install(n *node, file *content.File, judged moment, write bool) (bool, error) {
	n.Mu.Lock()
	defer n.Mu.Unlock()
	if judged != (moment{n.generation, f.rules()}) {
		return false, file.Close()
	}
	old := n.file
	if old == nil {
		n.foundChanged()
	}
	file.Join(write)
	file.CountReads()
	n.reserve = f.reserveOf(&n.Inode, n.FD())
	f.counts.opened(file.Form, +1)
	n.setFile(file)
	n.generation++
	if old == nil {
		n.SetOpen(true)
		file.InheritUnheard(n.unheard)
		n.unheard = nil
		return true, nil
	}
	file.Inherit(old)
	f.counts.opened(old.Form, -1)
	return true, old.Close()
}

// release gives back what acquire gave. The last holder closes the file; after the last writer,
// BACKING has the file open for reading alone.
func (f *FS) release(n *node, write bool) error {
	n.Mu.RLock()
	done := n.file == nil || n.file.Quit(write)
	n.Mu.RUnlock()
	if done {
		return nil
	}
	n.Mu.Lock()
	defer n.Mu.Unlock()
	if n.file == nil {
		return nil
	}
	file := n.file
	if !file.Leave(write) {
		f.lessen(n)
		return nil
	}
	n.setFile(nil)
	n.unheard = file.Unheard()
	n.SetOpen(false)
	n.closed(file.Form)
	f.counts.opened(file.Form, -1)
	return file.Close()
}

// openContent opens n's backing file in its form.
func (f *FS) openContent(cancel <-chan struct{}, n *node, want content.Intent) (*content.File, error) {
	b, can, err := n.reopen(want)
	if err != nil {
		return nil, err
	}
	form, err := judgeBy(can, b, f.strictest(n).Verdict)
	if err != nil {
		b.Close()
		return nil, f.damaged(n, err)
	}
	if form == backing.Encrypted {
		return f.openEncrypted(cancel, n, b, can, want.Write)
	}
	if form == backing.Empty {
		if form, err = f.begunClear(cancel, n, want.Write); err != nil {
			b.Close()
			return nil, err
		}
	}
	if err = permits(can, form); err == nil {
		err = f.permitClear(n, b, form, want.Write)
	}
	if err != nil {
		b.Close()
		return nil, err
	}
	if form.IsClear() { // else the next open may still be refused
		f.told.over(n.toldFile(), ofOpening)
	}
	return content.OpenClear(b, form, can), nil
}

// begunClear gives the form of an empty file: Clear if proven rules say so, for only proven rules
// begin cleartext. An open for reading does not wait for the proof.
func (f *FS) begunClear(cancel <-chan struct{}, n *node, write bool) (backing.Form, error) {
	if write {
		if err := f.mayCreate(cancel); err != nil {
			return backing.Empty, err
		}
	}
	if f.store.Verified() && f.strictest(n).Class == layout.Clear {
		return backing.Clear, nil
	}
	return backing.Empty, nil
}

func (f *FS) openEncrypted(cancel <-chan struct{}, n *node, b *cryptfile.OSFile, can content.Intent, write bool) (*content.File, error) {
	if err := permits(can, backing.Encrypted); err != nil {
		b.Close()
		return nil, err
	}
	ctx, done := keyContext(cancel)
	defer done()
	slots, err := backing.ReadHeader(ctx, b)
	if err != nil {
		b.Close()
		return nil, f.damaged(n, err)
	}
	if slots.Header.Marked() && !can.Write && !f.readOnly.Load() { // the mover writes
		b.Close()
		if b, can, err = n.reopen(content.Intent{Read: true, Write: true}); err != nil {
			return nil, err
		}
	}
	dek, err := f.keys.Unwrap(ctx, slots.Header)
	if err != nil {
		b.Close()
		return nil, f.locked(n, err)
	}
	var file *content.File
	if slots.Header.Marked() {
		file, err = f.openMoving(ctx, n, b, dek, slots, can)
	} else {
		file, err = f.encrypted(n, b, dek, can, slots.Differ)
	}
	if err != nil {
		return nil, err
	}
	if write {
		if err := file.Heal(); err != nil {
			return nil, errors.Join(f.damaged(n, err), file.Close())
		}
	}
	if write || !slots.Differ { // else an open for writing may still be refused
		f.told.over(n.toldFile(), ofOpening)
	}
	return file, nil
}

// locked passes on an error of unwrapping n's DEK.
func (f *FS) locked(n *node, err error) error {
	if errors.Is(err, keys.ErrNoKey) {
		f.counts.noKey.Add(1)
		f.refuse(n, keyLacking, "key not available", "error", err)
	}
	return f.damaged(n, err)
}

// encrypted opens b, an encrypted file of n, and takes over b and dek.
func (f *FS) encrypted(n *node, b *cryptfile.OSFile, dek *keys.DEK, can content.Intent, torn bool) (*content.File, error) {
	file, warning, err := content.OpenEncrypted(b, dek, can, torn)
	if err != nil {
		return nil, f.damaged(n, err)
	}
	if warning != nil {
		f.counts.damaged.Add(1)
		f.tell(n, badLength, slog.LevelWarn, "bad length", "error", warning)
	} else {
		f.told.over(n.toldFile(), badLength)
	}
	return file, nil
}
