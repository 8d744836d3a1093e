package fs

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"vmcryptfs/fs/backing"
	"vmcryptfs/fs/content"
	"vmcryptfs/fs/cryptfile"
	"vmcryptfs/fs/inode"
	"vmcryptfs/fs/move"
	"vmcryptfs/keys"
	"vmcryptfs/layout"
)

// End does the last steps of a move whose W is 0, or whose content is all in S again. Afterwards the
// file is one file, and its id may leave the settings. After an error End may be called again.
func (m *Mover) End(ctx context.Context) error {
	f, n := m.fs, m.node
	e, err := f.ending(ctx, n)
	if err != nil {
		return fmt.Errorf("end the move of %s: %w", f.path(n), err)
	}
	defer e.close()
	f.names.Lock()
	defer f.names.Unlock()
	n.Mu.Lock()
	defer n.Mu.Unlock()
	if err := f.end(ctx, n, e); err != nil {
		return fmt.Errorf("end the move of %s: %w", f.path(n), err)
	}
	return nil
}

// ending is the file that stays of a moving file, opened before the locks are taken.
type ending struct {
	carrierStays bool
	file         *cryptfile.OSFile // that stays
	dek          *keys.DEK         // of file; nil: in clear
	marks        *keys.DEK         // of the carrier, where that stays
	torn         bool
}

// close gives up what no File has taken over.
func (e *ending) close() {
	e.marks.Wipe()
	if e.file != nil {
		e.dek.Wipe()
		e.file.Close() // nothing was written by this descriptor but the header, durably
	}
}

// ending opens the file that stays of n.
func (f *FS) ending(ctx context.Context, n *node) (*ending, error) {
	n.Mu.RLock()
	var pair *move.Pair
	if n.file != nil {
		pair = n.file.Pair()
	}
	n.Mu.RUnlock()
	switch {
	case pair == nil:
		return nil, ErrNotMoving
	case pair.Gone():
		return nil, ErrGone
	}
	e := &ending{carrierStays: (pair.Kind() == layout.MoveDecrypt) == (pair.Watermark() == layout.AllInSource)}
	err := f.openStaying(ctx, n, pair.ID(), e)
	if err != nil {
		e.close()
		return nil, err
	}
	return e, nil
}

func (f *FS) openStaying(ctx context.Context, n *node, id layout.FileID, e *ending) (err error) {
	if e.carrierStays {
		e.file, _, err = n.reopen(content.Intent{Read: true, Write: true})
	} else {
		err = f.atCarrier(n, func(at inode.Place) (err error) {
			e.file, err = openBeside(at.Dir.FD(), layout.MoveName(id), false)
			return err
		})
	}
	if err != nil {
		return err
	}
	isEncrypted, err := cryptfile.IsEncrypted(e.file)
	if err != nil || !isEncrypted {
		return err
	}
	slots, err := backing.ReadHeader(ctx, e.file)
	if err != nil {
		return err
	}
	e.torn = slots.Differ
	if e.dek, err = f.keys.Unwrap(ctx, slots.Header); err == nil && e.carrierStays {
		e.marks, err = f.keys.Unwrap(ctx, slots.Header)
	}
	return err
}

// end is End with the locks held.
func (f *FS) end(ctx context.Context, n *node, e *ending) error {
	if n.file == nil || n.file.Pair() == nil {
		return ErrNotMoving
	}
	pair := n.file.Pair()
	if w := pair.Watermark(); w != 0 && w != layout.AllInSource {
		return fmt.Errorf("%d bytes are to be moved yet", w)
	}
	at, err := f.onlyName(n)
	if err != nil {
		return err
	}
	defer at.Dir.Unpin()
	d, err := f.newMoveDir(at, n.Key(), pair.ID())
	if err != nil {
		return err
	}
	err = d.noteCompanion()
	if err == nil && e.carrierStays {
		err = f.endInCarrier(ctx, n, d, e)
	} else if err == nil {
		err = f.endInCompanion(n, d, e)
	}
	return errors.Join(err, d.close())
}

func (f *FS) endInCarrier(ctx context.Context, n *node, d *moveDir, e *ending) error {
	unmark := func() error { return markHeader(ctx, e.file, e.marks, none) }
	if err := move.EndInCarrier(d, unmark); err != nil {
		return err
	}
	_ = move.ZeroRecords(e.file) // they count for nothing without the mark
	file, err := f.staying(n, e)
	if err != nil {
		return err
	}
	return f.goOn(n, file, nil, 0)
}

func (f *FS) endInCompanion(n *node, d *moveDir, e *ending) error {
	var st unix.Stat_t
	if err := unix.Fstat(e.file.Fd(), &st); err != nil {
		return err
	}
	if err := d.describeCompanion(e.file, backing.KeyOf(&st)); err != nil {
		return err
	}
	n.file.SettleTimes()
	mode, err := copyAttributes(n.FD(), e.file.Fd())
	if err == nil {
		err = move.EndInCompanion(d, e.file)
	}
	if err != nil {
		return err
	}
	file, err := f.staying(n, e)
	if err != nil {
		return err
	}
	return f.goOn(n, file, &d.made, mode)
}

// staying is the open file of e, which is taken over.
func (f *FS) staying(n *node, e *ending) (*content.File, error) {
	b, dek := e.file, e.dek
	e.file, e.dek = nil, nil
	can := content.Intent{Read: true, Write: true}
	if dek == nil {
		form := backing.Clear
		if f.known(n).Class == layout.Inspect {
			form = backing.Descriptor
		}
		return content.OpenClear(b, form, can), nil
	}
	return f.encrypted(n, b, dek, can, e.torn)
}
