package fs

import (
	"context"
	"errors"
	"fmt"

	"vmcryptfs/fs/backing"
	"vmcryptfs/layout"
)

// MaxConvert is the greatest logical size, in bytes, of a file for Mover.Convert.
const MaxConvert = maxConvert

// Why a file is not converted.
var (
	ErrTooLong   = errors.New("the file is too long to be converted while other requests wait")
	ErrNotWanted = errors.New("a name of the file is to be encrypted, so nothing makes the file clear")
)

// Convert gives a file of at most MaxConvert bytes the form of the kind at once, as a rename does,
// while requests wait: no move begins. ErrTooLong, ErrMoving and ErrNotWanted: the file stays as it is.
func (m *Mover) Convert(ctx context.Context, kind layout.MoveKind) error {
	f, n := m.fs, m.node
	var err error
	if kind == layout.MoveDecrypt {
		err = f.convertToClear(n)
	} else {
		err = f.withKey(ctx.Done(), f.placeOf(n), func(k *fileKey) error { return f.convertToEncrypted(n, kind, k) })
	}
	if err != nil {
		return fmt.Errorf("convert %s: %w", f.path(n), err)
	}
	return nil
}

func (f *FS) convertToEncrypted(n *node, kind layout.MoveKind, k *fileKey) error {
	f.names.Lock()
	defer f.names.Unlock()
	n.Mu.Lock()
	defer n.Mu.Unlock()
	if err := n.convertible(); err != nil {
		return err
	}
	if kind == layout.MoveEncrypt && n.file.Form == backing.Encrypted { // another request was faster
		return nil
	}
	return f.encrypt(n, k)
}

func (f *FS) convertToClear(n *node) error {
	f.names.Lock()
	defer f.names.Unlock()
	n.Mu.Lock()
	defer n.Mu.Unlock()
	if err := n.convertible(); err != nil {
		return err
	}
	if n.file.Form != backing.Encrypted { // another request was faster
		return nil
	}
	if f.strictest(n).Class != layout.Clear {
		return ErrNotWanted
	}
	return f.decrypt(n, backing.Clear)
}

// convertible is nil for an open file that Convert takes. n.Mu is held.
func (n *node) convertible() error {
	if n.file == nil || n.file.Pair() != nil {
		return ErrMoving
	}
	size, err := n.file.Size()
	if err == nil && size > maxConvert {
		err = ErrTooLong
	}
	return err
}
