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

// Why a file is not moved.
var (
	ErrSeveralLinks = errors.New("the file has several links, which a move would part")
	ErrMoving       = fmt.Errorf("a move of the file is under way: %w", unix.EBUSY)
	ErrGone         = move.ErrGone
	ErrOtherForm    = errors.New("the file is not in the form that such a move begins with; perhaps it was moved already")
	// ErrStillMarked: the move has not begun, and BACKING refused to take the mark out of the file.
	// The id stays listed, or the file could not be opened: the next open, or Begin, takes it out.
	ErrStillMarked = errors.New("the move has not begun, and the file bears its mark still, so the id stays in the settings")
	ErrNotMoving   = errors.New("no move of the file is under way")
)

// Mover is a file held open to be moved. One goroutine at a time uses a Mover.
type Mover struct {
	fs   *FS
	node *node
}

// OpenMover holds the file at a path below BACKING open, to begin a move or to go on with one. No
// lock of fs is held.
func (f *FS) OpenMover(path string) (*Mover, error) {
	n, err := f.recallPath(path)
	if err != nil {
		return nil, err
	}
	defer f.table.Forget(n.ID, 1)
	if !n.IsRegular() {
		return nil, fmt.Errorf("%s is no regular file: %w", path, unix.EINVAL)
	}
	if err := f.acquire(nil, n, content.Intent{Read: true, Write: true}); err != nil {
		return nil, err
	}
	n.Ref()
	return &Mover{f, n}, nil
}

// Close lets the file go.
func (m *Mover) Close() error {
	err := m.fs.release(m.node, true)
	m.node.Unref()
	return err
}

// Pair is the content of the file, if it moves; nil if it does not.
func (m *Mover) Pair() *move.Pair {
	m.node.Mu.RLock()
	defer m.node.Mu.RUnlock()
	if m.node.file == nil {
		return nil
	}
	return m.node.file.Pair()
}

// Begin begins a move of the kind under id, which the settings list. ErrSeveralLinks, ErrMoving,
// ErrOtherForm and ErrGone: not this file, or not now. ErrStillMarked: the id must stay listed. After another error the
// file is as before, or Pair is not nil, and Step tries again what BACKING refused.
func (m *Mover) Begin(ctx context.Context, kind layout.MoveKind, id layout.FileID) error {
	f, n := m.fs, m.node
	if err := m.settleFirst(kind); err != nil {
		return err
	}
	var err error
	if kind == layout.MoveDecrypt {
		err = f.beginClear(ctx, n, id)
	} else {
		err = f.withKey(ctx.Done(), f.placeOf(n), func(k *fileKey) error { return f.beginEncrypted(ctx, n, kind, id, k) })
	}
	if err != nil {
		return fmt.Errorf("begin to move %s: %w", f.path(n), err)
	}
	return nil
}

// settleFirst makes the file durable before the locks of a begin are taken, which waits for another
// sync: that one finds little to do. ErrOtherForm: the move will not begin.
func (m *Mover) settleFirst(kind layout.MoveKind) error {
	m.node.Mu.RLock()
	defer m.node.Mu.RUnlock()
	if m.node.file == nil {
		return unix.EBADF
	}
	if m.node.file.Pair() == nil && m.node.otherForm(kind) {
		return ErrOtherForm
	}
	return m.node.file.Sync(cryptfile.Full)
}

// beginEncrypted begins a move to an encrypted file under k.
func (f *FS) beginEncrypted(ctx context.Context, n *node, kind layout.MoveKind, id layout.FileID, k *fileKey) error {
	var old *keys.DEK // of S, encrypted
	var oldID layout.FileID
	if kind == layout.MoveDeep {
		var err error
		if old, oldID, err = f.keyOf(ctx, n); err != nil {
			return err
		}
	}
	f.names.Lock()
	defer f.names.Unlock()
	n.Mu.Lock()
	defer n.Mu.Unlock()
	d, err := f.moveDirOf(n, kind, id)
	if err == nil {
		if err = f.checkKey(k); err == nil {
			err = f.beginIn(n, d, kind, id, k, move.Half{DEK: old, ID: oldID})
			old = nil
		}
		err = errors.Join(err, d.close())
	}
	old.Wipe()
	return err
}

// keyOf is another DEK of n's encrypted file, and the file's id.
func (f *FS) keyOf(ctx context.Context, n *node) (*keys.DEK, layout.FileID, error) {
	b, _, err := n.reopen(content.Intent{Read: true})
	if err != nil {
		return nil, layout.FileID{}, err
	}
	defer b.Close()
	slots, err := backing.ReadHeader(ctx, b)
	if err != nil {
		return nil, layout.FileID{}, err
	}
	dek, err := f.keys.Unwrap(ctx, slots.Header)
	return dek, slots.Header.FileID, err
}

// moveDirOf is the directory of n, for a move to begin. FS.names and n.Mu are held exclusively.
func (f *FS) moveDirOf(n *node, kind layout.MoveKind, id layout.FileID) (*moveDir, error) {
	if n.file == nil {
		return nil, unix.EBADF
	}
	if n.file.Pair() != nil {
		return nil, ErrMoving
	}
	if n.otherForm(kind) {
		return nil, ErrOtherForm
	}
	at, err := f.onlyName(n)
	if err != nil {
		return nil, err
	}
	defer at.Dir.Unpin()
	return f.newMoveDir(at, n.Key(), id)
}

// otherForm reports whether n, open, is in another form than a move of the kind begins with: its
// ciphertext would be encrypted once more. n.Mu is held.
func (n *node) otherForm(kind layout.MoveKind) bool {
	return n.file.InClear() != (kind == layout.MoveEncrypt)
}

// onlyName is the one name of n, whose directory is pinned.
func (f *FS) onlyName(n *node) (inode.Place, error) {
	var st unix.Stat_t
	if err := unix.Fstat(n.FD(), &st); err != nil {
		return inode.Place{}, err
	}
	switch {
	case st.Nlink > 1:
		return inode.Place{}, ErrSeveralLinks
	case st.Nlink == 0:
		return inode.Place{}, ErrGone
	}
	names := f.pinnedNames(n, n.Key())
	if len(names) != 1 {
		unpinAll(names)
		return inode.Place{}, fmt.Errorf("%d known names lead to the file: %w", len(names), unix.ENOENT)
	}
	return names[0], nil
}

// beginIn begins in d, and takes over s.DEK.
func (f *FS) beginIn(n *node, d *moveDir, kind layout.MoveKind, id layout.FileID, k *fileKey, s move.Half) error {
	b, can, err := n.reopenHeld(content.Intent{Read: true, Write: true})
	if err != nil {
		s.DEK.Wipe()
		return err
	}
	if kind == layout.MoveDeep {
		if err := stillIs(b, s.ID); err != nil {
			s.DEK.Wipe()
			return errors.Join(err, b.Close())
		}
	}
	s.Backing = b
	var mode uint32
	dek := k.take()
	pair, err := move.BeginEncrypted(move.Plan{
		ID: id, Kind: kind, Dir: f.stepsOf(d), Header: *k.header, DEK: dek,
		Prepare: func(cryptfile.Backing) (err error) {
			mode, err = copyAttributes(n.FD(), d.made.file.Fd())
			return err
		},
	}, s)
	if pair == nil {
		return err
	}
	file := content.OpenMoving(content.Moving{Pair: pair, Carrier: d.made.file, Companion: b, DEK: dek}, can, false)
	return errors.Join(err, f.goOn(n, file, &d.made, mode))
}

// stillIs is ErrOtherForm for a file with another id than the one whose key was had before the locks.
func stillIs(b *cryptfile.OSFile, id layout.FileID) error {
	slots, err := cryptfile.ReadHeader(b)
	if err == nil && slots.Header.FileID != id {
		err = ErrOtherForm
	}
	return err
}

// goOn makes file n's open file, and the made file, if it is not nil, n's backing file. The handles
// and the inode number shown carry on.
func (f *FS) goOn(n *node, file *content.File, made *madeFile, mode uint32) error {
	if made != nil {
		f.succeed(n, made, mode)
	} else {
		n.generation++
	}
	old := n.file
	file.Inherit(old)
	file.CountReads()
	f.counts.opened(file.Form, +1)
	f.counts.opened(old.Form, -1)
	n.setFile(file)
	return old.Close()
}
