package fs

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"vmcryptfs/advice"
	"vmcryptfs/fs/backing"
	"vmcryptfs/fs/content"
	"vmcryptfs/fs/cryptfile"
	"vmcryptfs/fs/inode"
	"vmcryptfs/fs/move"
	"vmcryptfs/keys"
	"vmcryptfs/layout"
)

// A file whose header bears a mark is half of a file: the carrier of a move. The other half, the
// companion, lies beside the carrier. Both are opened as one content.

// errMoveOver: the move is over but for its last steps, which come before the file is opened.
var errMoveOver = errors.New("the last steps of the file's move come first")

// ErrUnlisted: the settings list no such move.
var ErrUnlisted = advice.New(
	fmt.Errorf("the settings do not list the move, as after a restore, or when somebody has put an old file back: %w", unix.EIO),
	"if it is a restore: vmcryptfs moves accept")

// openMoving opens n, whose carrier b has the header of slots, which dek proves; b and dek are taken
// over, also on error. ENOKEY: the settings that list the moves are not proven.
func (f *FS) openMoving(ctx context.Context, n *node, b *cryptfile.OSFile, dek *keys.DEK, slots layout.Slots, can content.Intent) (*content.File, error) {
	file, err := f.openPair(ctx, n, b, dek, slots, can)
	if err != nil {
		return nil, f.damaged(n, fmt.Errorf("move %s: %w", slots.Header.Mark, err))
	}
	return file, nil
}

func (f *FS) openPair(ctx context.Context, n *node, b *cryptfile.OSFile, dek *keys.DEK, slots layout.Slots, can content.Intent) (*content.File, error) {
	found, err := f.findMove(ctx, n, b, dek, slots.Header)
	if err == nil {
		var companion move.Half
		if companion, err = f.openCompanion(ctx, n, &found.Record); err == nil {
			return pairOf(found, move.Half{Backing: b, DEK: dek, ID: slots.Header.FileID}, companion, can, slots.Differ)
		}
	}
	dek.Wipe()
	return nil, errors.Join(err, b.Close())
}

func pairOf(found move.Found, carrier, companion move.Half, can content.Intent, torn bool) (*content.File, error) {
	pair, err := move.Open(found, carrier, companion)
	if err != nil {
		return nil, err
	}
	m := content.Moving{Pair: pair, Carrier: carrier.Backing.(*cryptfile.OSFile), Companion: companion.Backing.(*cryptfile.OSFile), DEK: carrier.DEK}
	return content.OpenMoving(m, can, torn), nil
}

// findMove is the proven record of the move that marks the carrier b. errMoveOver: the content is in
// one file.
func (f *FS) findMove(ctx context.Context, n *node, b *cryptfile.OSFile, dek *keys.DEK, h *layout.Header) (move.Found, error) {
	if err := f.prove(ctx); err != nil {
		return move.Found{}, f.lacksKey(err)
	}
	if !slices.Contains(f.store.Settings().Moves, h.Mark) {
		f.refuse(n, unlisted, "a file of a move that is not listed", "move", h.Mark)
		return move.Found{}, ErrUnlisted
	}
	found, err := move.Find(b, h, dek)
	if err != nil {
		return found, err
	}
	if w := found.Record.Watermark; w == 0 || w == layout.AllInSource {
		return found, errMoveOver
	}
	return found, f.syncDirectoryOf(n)
}

// syncDirectoryOf makes the names durable by which halves of n are found.
func (f *FS) syncDirectoryOf(n *node) error {
	return f.atCarrier(n, func(at inode.Place) error {
		fd, err := unix.Openat(at.Dir.FD(), ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		return errors.Join(unix.Fsync(fd), unix.Close(fd))
	})
}

// atCarrier calls use with the one name of n, which moves, while nobody renames.
func (f *FS) atCarrier(n *node, use func(inode.Place) error) error {
	f.names.RLock()
	defer f.names.RUnlock()
	names := f.pinnedNames(n, n.Key())
	defer unpinAll(names)
	if len(names) == 0 {
		return fmt.Errorf("no known name leads to %s any more: %w", f.path(n), unix.EIO)
	}
	return use(names[0])
}

// openCompanion opens the companion of n's move, beside n.
func (f *FS) openCompanion(ctx context.Context, n *node, r *layout.MoveRecord) (move.Half, error) {
	var file *cryptfile.OSFile
	err := f.atCarrier(n, func(at inode.Place) (err error) {
		file, err = openBeside(at.Dir.FD(), layout.MoveName(r.Move), f.readOnly.Load())
		return err
	})
	if errors.Is(err, unix.ENOENT) {
		err = fmt.Errorf("%w is missing: %s", move.ErrCompanion, layout.MoveName(r.Move))
	}
	if err != nil {
		return move.Half{}, err
	}
	h := move.Half{Backing: file}
	if err := f.judgeCompanion(ctx, &h, r); err != nil {
		return move.Half{}, errors.Join(err, file.Close())
	}
	return h, nil
}

// openBeside opens a regular file of BACKING by its name.
func openBeside(dir int, name string, readOnly bool) (*cryptfile.OSFile, error) {
	access := unix.O_RDWR
	if readOnly {
		access = unix.O_RDONLY
	}
	fd, err := unix.Openat(dir, name, access|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOATIME|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, errors.Join(fmt.Errorf("%w: %s is no regular file", move.ErrCompanion, name), err, unix.Close(fd))
	}
	return cryptfile.NewOSFile(fd), nil
}

// judgeCompanion gets the key of an encrypted companion. A companion in clear never looks encrypted.
func (f *FS) judgeCompanion(ctx context.Context, h *move.Half, r *layout.MoveRecord) error {
	isEncrypted, err := cryptfile.IsEncrypted(h.Backing)
	if err != nil {
		return err
	}
	if want := r.Kind == layout.MoveDeep; isEncrypted != want {
		return fmt.Errorf("%w is encrypted: %t, and should be: %t", move.ErrCompanion, isEncrypted, want)
	}
	if !isEncrypted {
		return nil
	}
	slots, err := backing.ReadHeader(ctx, h.Backing.(*cryptfile.OSFile))
	if err != nil {
		return err
	}
	h.ID = slots.Header.FileID
	h.DEK, err = f.keys.Unwrap(ctx, slots.Header)
	return f.lacksKey(err)
}

// endFound does the last steps of a move that was found over but for them, and leaves n closed. No
// lock is held.
func (f *FS) endFound(cancel <-chan struct{}, n *node) error {
	if f.readOnly.Load() {
		return unix.EROFS
	}
	ctx, done := keyContext(cancel)
	defer done()
	f.names.Lock()
	defer f.names.Unlock()
	n.Mu.Lock()
	defer n.Mu.Unlock()
	if n.file != nil {
		return nil // another request was faster
	}
	if err := f.endClosed(ctx, n); err != nil {
		return fmt.Errorf("end the move of %s: %w", f.path(n), err)
	}
	f.log.Info("a move is over", "file", f.path(n))
	return nil
}

// endClosed is endFound with the locks held.
func (f *FS) endClosed(ctx context.Context, n *node) error {
	b, _, err := n.reopenHeld(content.Intent{Read: true, Write: true})
	if err != nil {
		return err
	}
	defer b.Close()
	slots, err := cryptfile.ReadHeader(b)
	if err != nil || !slots.Header.Marked() {
		return err
	}
	dek, err := f.keys.Unwrap(ctx, slots.Header)
	if err != nil {
		return err
	}
	defer dek.Wipe()
	found, err := move.Find(b, slots.Header, dek)
	if err != nil {
		return err
	}
	names := f.pinnedNames(n, n.Key())
	defer unpinAll(names)
	if len(names) != 1 {
		return errLinks
	}
	d, err := f.newMoveDir(names[0], n.Key(), slots.Header.Mark)
	if err != nil {
		return err
	}
	unmark := func() error { return markHeader(ctx, b, dek, none) }
	return errors.Join(f.endSteps(n, d, &found.Record, unmark), d.close())
}

// endSteps leaves the file whose content is whole, and n with it.
func (f *FS) endSteps(n *node, d *moveDir, r *layout.MoveRecord, unmark func() error) error {
	carrierStays := (r.Kind == layout.MoveDecrypt) == (r.Watermark == layout.AllInSource)
	if carrierStays {
		if err := d.noteCompanion(); err != nil {
			return err
		}
		return move.EndInCarrier(d, unmark)
	}
	if err := d.adoptCompanion(); err != nil {
		return err
	}
	mode, err := copyAttributes(n.FD(), d.made.file.Fd())
	if err == nil {
		err = move.EndInCompanion(d, d.made.file)
	}
	err = errors.Join(err, d.made.file.Close())
	if err != nil {
		return err
	}
	f.succeed(n, &d.made, mode)
	return nil
}

// succeed gives n the file made, which has the name now.
func (f *FS) succeed(n *node, made *madeFile, mode uint32) {
	n.Succeed(made.path, made.key, f.table.BirthOf(made.path))
	made.path = -1
	n.mode.Store(mode)
	n.written.Store(true)
	n.generation++
}
