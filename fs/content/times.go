package content

import (
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"vmcryptfs/fs/cryptfile"
)

// touchEvery is how seldom writes to a moving file touch the carrier: a kernel's own file times are
// hardly finer.
const touchEvery = 10 * time.Millisecond

// times bring the modification time of a moving file to the carrier, whose attributes are the
// file's: a write may touch the companion alone. A burst of writes touches the carrier once in
// touchEvery; what is left is due, and is settled before somebody looks, at a sync, and at the last
// close. Safe for concurrent use.
type times struct {
	carrier *cryptfile.OSFile
	at      atomic.Int64 // the last write, in nanoseconds of the epoch
	touched atomic.Int64 // the last touch
	due     atomic.Bool  // the carrier does not have at
}

// changed notes a change of the content, made just now.
func (t *times) changed() {
	now := time.Now().UnixNano()
	t.at.Store(now)
	if !t.due.Load() {
		t.due.Store(true)
	}
	last := t.touched.Load()
	if now-last >= int64(touchEvery) && t.touched.CompareAndSwap(last, now) {
		t.settle()
	}
}

// settle gives the carrier the time of the last write, if that is due. A refusal leaves it due: the
// thread may have the identity of a caller for the moment.
func (t *times) settle() {
	if !t.due.Swap(false) {
		return
	}
	mtime := unix.NsecToTimespec(t.at.Load())
	set := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, mtime}
	if unix.UtimesNanoAt(t.carrier.Fd(), "", set, unix.AT_EMPTY_PATH) != nil {
		t.due.Store(true)
	}
}

// drop gives up what is due: a caller sets another time.
func (t *times) drop() { t.due.Store(false) }

// SettleTimes brings the modification time of a moving file up to date. Mu is held.
func (f *File) SettleTimes() {
	if m, ok := f.Content.(*moving); ok {
		m.times.settle()
	}
}

// DropTimes is called before a caller sets the modification time of the file. Mu is held.
func (f *File) DropTimes() {
	if m, ok := f.Content.(*moving); ok {
		m.times.drop()
	}
}

// WriteAt is the Pair's.
func (m *moving) WriteAt(p []byte, off int64, d cryptfile.Durability) (int, error) {
	n, err := m.Pair.WriteAt(p, off, d)
	if n > 0 {
		m.times.changed()
	}
	return n, err
}

// Truncate is the Pair's.
func (m *moving) Truncate(size int64) error { return m.noted(m.Pair.Truncate(size)) }

// Punch is the Pair's.
func (m *moving) Punch(off, n int64) error { return m.noted(m.Pair.Punch(off, n)) }

// Zero is the Pair's.
func (m *moving) Zero(off, n int64, keepSize bool) error {
	return m.noted(m.Pair.Zero(off, n, keepSize))
}

// Allocate is the Pair's.
func (m *moving) Allocate(off, n int64, keepSize bool) error {
	return m.noted(m.Pair.Allocate(off, n, keepSize))
}

func (m *moving) noted(err error) error {
	if err == nil {
		m.times.changed()
	}
	return err
}

// Sync is the Pair's.
func (m *moving) Sync(d cryptfile.Durability) error {
	m.times.settle()
	return m.Pair.Sync(d)
}

// Close is the Pair's.
func (m *moving) Close() error {
	m.times.settle()
	return m.Pair.Close()
}
