package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"golang.org/x/sys/unix"

	"vmcryptfs/advice"
	"vmcryptfs/fs/backing"
	"vmcryptfs/fs/cryptfile"
	"vmcryptfs/fs/daemon"
	"vmcryptfs/fs/move"
	"vmcryptfs/keys"
	"vmcryptfs/layout"
	"vmcryptfs/words"
)

// exported is the content of a file to export: of one backing file, or of the two of a moving file.
type exported struct {
	exportable
	size int64
	// unchanged is errMovedOn if content went elsewhere since the file was opened: what is cut off
	// behind a move reads as a hole by then. Valid before Close.
	unchanged func() error
}

// errMovedOn: a mount is at work on the file.
var errMovedOn error = advice.New(errors.New("it moved on, or became shorter, while it was read"), "export it again, with its move paused or with no mount of it")

// exportable is what both kinds of files do.
type exportable interface {
	ReadAt(p []byte, off int64) (int, error)
	Seek(off int64, whence int) (int64, error)
	Close() error
}

// openWhole opens a file in one backing file, and takes over b and dek, also on error.
func openWhole(b cryptfile.Backing, dek *keys.DEK) (*exported, error) {
	stored, err := b.Size()
	if err != nil {
		dek.Wipe()
		return nil, errors.Join(err, b.Close())
	}
	f, err := cryptfile.Open(b, dek)
	if err != nil {
		return nil, err
	}
	return &exported{f, f.Size(), func() error {
		if now, err := b.Size(); err != nil || now >= stored {
			return err
		}
		return errMovedOn
	}}, nil
}

// refuseCompanion refuses b with the path at if b is the other half of a moving file by its name:
// what it holds is a part of the content.
func refuseCompanion(ctx context.Context, at string, b *cryptfile.OSFile) error {
	if _, _, ok := layout.ParseMoveName(filepath.Base(at)); !ok {
		return nil
	}
	dir, err := openDirOf(at)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	m, err := backing.FindMove(ctx, dir, filepath.Base(at), b)
	if err != nil {
		return err
	}
	do := "bring the file that it belongs to into this directory, and export that; a copy under another name exports this part alone"
	if m.Other != "" {
		do = "export the file that it belongs to: " + words.Printable(filepath.Join(filepath.Dir(at), m.Other))
	}
	return advice.New(fmt.Errorf("it is the companion of move %s, a part of a file", m.ID), do)
}

// openMoving opens the content of a moving file: carrier with the path at, whose header h is proven,
// and its companion. openMoving takes over carrier, also on error. The record is proven by the
// carrier's DEK.
func openMoving(ctx context.Context, source *daemon.KeySource, at string, carrier move.Half, h *layout.Header) (*exported, error) {
	found, err := move.Find(carrier.Backing, h, carrier.DEK)
	if err == nil && backing.CarrierAlone(&found.Record) {
		return openWhole(carrier.Backing, carrier.DEK)
	}
	var companion move.Half
	if err == nil {
		companion, err = openCompanion(ctx, source, at, &found.Record)
	}
	if err != nil {
		carrier.DEK.Wipe()
		return nil, errors.Join(err, carrier.Backing.Close())
	}
	return openPair(found, carrier, companion, h)
}

// openPair opens both halves, and takes them over, also on error.
func openPair(found move.Found, carrier, companion move.Half, h *layout.Header) (*exported, error) {
	pair, err := move.Open(found, carrier, companion)
	if err != nil {
		return nil, err
	}
	size, err := pair.Size()
	if err != nil {
		return nil, errors.Join(err, pair.Close())
	}
	return &exported{pair, size, func() error {
		if now, err := move.Find(carrier.Backing, h, carrier.DEK); err != nil || now.Record != found.Record {
			return errMovedOn
		}
		return nil
	}}, nil
}

// openCompanion opens the companion beside the carrier at, as the proven record r says it is.
func openCompanion(ctx context.Context, source *daemon.KeySource, at string, r *layout.MoveRecord) (move.Half, error) {
	dir, err := openDirOf(at)
	if err != nil {
		return move.Half{}, err
	}
	defer unix.Close(dir)
	b, name, err := backing.OpenCompanion(dir, r.Move)
	if err != nil {
		return move.Half{}, fmt.Errorf("%s: %w", layout.MoveName(r.Move), err)
	}
	if b == nil {
		return move.Half{}, missingCompanion(at, r.Move)
	}
	half, err := companionHalf(ctx, source, b, r.Kind)
	if err != nil {
		return move.Half{}, errors.Join(fmt.Errorf("%s: %w", name, err), b.Close())
	}
	return half, nil
}

// missingCompanion names the file that is missed beside the carrier at.
func missingCompanion(at string, id layout.FileID) error {
	name := layout.MoveName(id)
	return advice.New(backing.Missing(name), "bring "+words.Printable(filepath.Join(filepath.Dir(at), name))+" back, from the backup that the file is from")
}

// companionHalf is b in the form that b has: a record of another form refuses it.
func companionHalf(ctx context.Context, source *daemon.KeySource, b *cryptfile.OSFile, kind layout.MoveKind) (move.Half, error) {
	encrypted, err := cryptfile.IsEncrypted(b)
	if err != nil {
		return move.Half{}, err
	}
	if !encrypted && kind != layout.MoveDeep {
		return move.Half{Backing: b}, nil
	}
	slots, err := findHeader(ctx, b) // also of a companion whose slot A was wiped
	if err != nil {
		return move.Half{}, err
	}
	if slots.Header.Marked() {
		return move.Half{}, move.ErrCompanion
	}
	dek, err := source.Cache.Unwrap(ctx, slots.Header)
	if err != nil {
		return move.Half{}, source.Explain(err)
	}
	return move.Half{Backing: b, DEK: dek, ID: slots.Header.FileID}, nil
}
