package cryptfile

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"vmcryptfs/layout"
)

// Between two attempts at a lock: its holders write two slots and sync, or one.
const (
	firstLockPause = time.Millisecond
	lastLockPause  = 10 * time.Millisecond
)

// LockHeader waits until nobody else, in this process or another one that keeps to this
// rule, is about to update the header of the file, and keeps the others out until
// unlock. What was read of the header before counts no more. f is open for writing, and
// one goroutine at a time locks by it.
//
// The lock is on the file, of slot B's bytes, and of this open file description
// (F_OFD_SETLK in fcntl(2)); on a network file system it keeps other hosts out too.
// Programs that lock disk images do so in their first bytes.
func (f *OSFile) LockHeader(ctx context.Context) (unlock func(), err error) {
	return f.lockHeader(ctx, unix.F_WRLCK)
}

// ReadHeaderLocked is ReadHeader at a time when nobody updates the header. An update
// writes one slot after the other, so who reads them beside it may find neither whole:
// what ReadHeader calls damage is damage if this does. f is open for reading at least.
func (f *OSFile) ReadHeaderLocked(ctx context.Context) (layout.Slots, error) {
	unlock, err := f.lockHeader(ctx, unix.F_RDLCK)
	if err != nil {
		return layout.Slots{}, err
	}
	defer unlock()
	return ReadHeader(f)
}

// HealHeader is Heal of f's header in b, its backing file, by slots that it reads itself
// under LockHeader and proves with the DEK: what was read when f was opened may have been
// updated since, and must not come back. layout.ErrDamaged or keys.ErrTampered when the
// header is not f's any more.
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

// heal is Heal by slots that are proven.
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

// lockHeader takes a lock of this kind.
func (f *OSFile) lockHeader(ctx context.Context, kind int16) (unlock func(), err error) {
	pause := time.NewTimer(0)
	defer pause.Stop()
	for wait := firstLockPause; ; wait = min(2*wait, lastLockPause) {
		err := f.lockSlot(kind)
		if err == nil {
			// Unlocking can fail only where the close that follows unlocks.
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
