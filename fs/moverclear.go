package fs

import (
	"context"
	"errors"
	"fmt"
	"time"

	"vmcryptfs/fs/content"
	"vmcryptfs/fs/cryptfile"
	"vmcryptfs/fs/move"
	"vmcryptfs/keys"
	"vmcryptfs/layout"
)

// marking is the file of BACKING that begins to move to a file in clear, with what marks it.
type marking struct {
	file *cryptfile.OSFile
	dek  *keys.DEK
	id   layout.FileID // the file's
}

// close gives up what no Pair has taken over.
func (m *marking) close() error {
	m.dek.Wipe()
	if m.file == nil {
		return nil
	}
	return m.file.Close()
}

// beginClear begins a move of n to a file in clear.
func (f *FS) beginClear(ctx context.Context, n *node, id layout.FileID) error {
	var m marking
	var err error
	if m.dek, m.id, err = f.keyOf(ctx, n); err != nil {
		return err
	}
	defer m.close()
	dek, _, err := f.keyOf(ctx, n) // for the Pair
	if err != nil {
		return err
	}
	f.names.Lock()
	defer f.names.Unlock()
	n.Mu.Lock()
	defer n.Mu.Unlock()
	d, err := f.moveDirOf(n, layout.MoveDecrypt, id)
	if err != nil {
		dek.Wipe()
		return err
	}
	return errors.Join(f.beginClearIn(ctx, n, d, id, &m, dek), d.close())
}

// beginClearIn marks n's file and begins in d. dek is taken over.
func (f *FS) beginClearIn(ctx context.Context, n *node, d *moveDir, id layout.FileID, m *marking, dek *keys.DEK) error {
	b, can, err := n.reopenHeld(content.Intent{Read: true, Write: true})
	if err != nil {
		dek.Wipe()
		return err
	}
	if m.file, _, err = n.reopenHeld(content.Intent{Read: true, Write: true}); err != nil {
		dek.Wipe()
		return errors.Join(err, b.Close())
	}
	if err := stillIs(b, m.id); err != nil {
		dek.Wipe()
		return errors.Join(err, b.Close())
	}
	found, err := m.mark(ctx, id)
	if err != nil {
		dek.Wipe()
		return errors.Join(err, b.Close(), m.unmark(ctx))
	}
	pair, err := move.BeginClear(move.Plan{ID: id, Kind: layout.MoveDecrypt, Dir: f.stepsOf(d)}, move.Half{Backing: b, DEK: dek, ID: m.id}, found)
	if pair == nil {
		return errors.Join(err, m.unmark(ctx))
	}
	file := content.OpenMoving(content.Moving{Pair: pair, Carrier: b, Companion: d.made.file, DEK: dek}, can, false)
	return errors.Join(err, f.goOn(n, file, nil, 0))
}

// mark records that all is in the file, and marks the file. After an error the file may be marked.
func (m *marking) mark(ctx context.Context, id layout.FileID) (move.Found, error) {
	if err := move.RecordAll(m.file, m.dek, id, m.id); err != nil {
		return move.Found{}, err
	}
	if err := markHeader(ctx, m.file, m.dek, id); err != nil {
		return move.Found{}, err
	}
	return move.Find(m.file, &layout.Header{FileID: m.id, Mark: id}, m.dek)
}

// unmark takes the mark out of a file whose move has not begun. ErrStillMarked: BACKING refused.
func (m *marking) unmark(ctx context.Context) error {
	if err := markHeader(context.WithoutCancel(ctx), m.file, m.dek, none); err != nil {
		return fmt.Errorf("%w: %w", ErrStillMarked, err)
	}
	return nil
}

// markWait bounds the wait for a rekey of the same file, which may fetch a key meanwhile: others wait
// for FS.names.
const markWait = 2 * time.Second

// markHeader is MarkHeader of b, within markWait.
func markHeader(ctx context.Context, b *cryptfile.OSFile, dek *keys.DEK, mark layout.FileID) error {
	ctx, cancel := context.WithTimeout(ctx, markWait)
	defer cancel()
	return b.MarkHeader(ctx, dek, mark)
}
