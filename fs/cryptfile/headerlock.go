package cryptfile

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"vmcryptfs/keys"
	"vmcryptfs/layout"
)

// Pauses between two attempts at a lock: a holder writes two slots and syncs, or one.
const (
	firstLockPause = time.Millisecond
	lastLockPause  = 10 * time.Millisecond
)

// LockHeader waits until no other process or goroutine following this rule is about to update the
// header of the file, and keeps others out until unlock. Header data read before the lock is
// outdated. f must be open for writing, and one goroutine at a time may lock by f.
//
// The lock covers slot B's bytes of the file and belongs to this open file description
// (F_OFD_SETLK in fcntl(2)); on a network file system the lock keeps other hosts out too.
// Programs that lock disk images lock the images' first bytes.
func (f *OSFile) LockHeader(ctx context.Context) (unlock func(), err error) {
	return f.lockHeader(ctx, unix.F_WRLCK)
}

// ReadHeaderLocked is ReadHeader while nobody updates the header. An update writes one slot after
// the other, so a read beside an update may find neither slot whole: ReadHeader's verdict of
// damage holds only if ReadHeaderLocked confirms the damage. f must be open at least for reading.
func (f *OSFile) ReadHeaderLocked(ctx context.Context) (layout.Slots, error) {
	unlock, err := f.lockHeader(ctx, unix.F_RDLCK)
	if err != nil {
		return layout.Slots{}, err
	}
	defer unlock()
	return ReadHeader(f)
}

// MarkHeader is Mark of f under LockHeader.
func (f *OSFile) MarkHeader(ctx context.Context, dek *keys.DEK, mark layout.FileID) error {
	unlock, err := f.LockHeader(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	if err = Mark(f, dek, mark); errors.Is(err, errLost) {
		err = Mark(f, dek, mark)
	}
	return err
}

// HealHeader is Heal of f's header in b, f's backing file. HealHeader reads the slots anew under
// LockHeader and proves them with the DEK: the slots read at f's opening may have been updated
// since, and must not come back. The error is layout.ErrDamaged or keys.ErrTampered when the
// header is no longer f's.
func (f *File) HealHeader(ctx context.Context, b *OSFile) error {
	unlock, err := b.LockHeader(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	f.ending.RLock()
	defer f.ending.RUnlock()
	if f.closed.Load() {
		return os.ErrClosed
	}
	if err = f.heal(b); errors.Is(err, errLost) {
		err = f.heal(b)
	}
	return err
}

// heal is Heal with proven slots.
func (f *File) heal(b Backing) error {
	s, err := ReadHeader(b)
	if err != nil {
		return err
	}
	if err := f.dek.Verify(s.Header); err != nil {
		return err
	}
	return Heal(b, s)
}

// lockHeader takes a lock of the given kind.
func (f *OSFile) lockHeader(ctx context.Context, kind int16) (unlock func(), err error) {
	pause := time.NewTimer(0)
	defer pause.Stop()
	for wait := firstLockPause; ; wait = min(2*wait, lastLockPause) {
		err := f.lockSlot(kind)
		if err == nil {
			// Unlocking can fail only where the following close unlocks.
			return func() { _ = f.lockSlot(unix.F_UNLCK) }, nil
		}
		if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EACCES) {
			return nil, fmt.Errorf("lock header: %w", err)
		}
		pause.Reset(wait)
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for another update of the header: %w", ctx.Err())
		case <-pause.C:
		}
	}
}

func (f *OSFile) lockSlot(kind int16) error {
	lock := unix.Flock_t{Type: kind, Whence: io.SeekStart, Start: layout.SlotBOffset, Len: layout.SlotSize}
	return restart(func() error {
		return unix.FcntlFlock(uintptr(f.fd), unix.F_OFD_SETLK, &lock)
	})
}
