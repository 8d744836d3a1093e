package content

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"vmcryptfs/fs/backing"
	"vmcryptfs/fs/cryptfile"
	"vmcryptfs/fs/rangelock"
)

// parts is a content of two files, as a move has: the bytes below the watermark are in one, the
// rest in the other. The lock, of bytes, is above the locks of the two.
type parts struct {
	low, high Content
	lock      rangelock.Lock
	watermark atomic.Int64 // changes under a hold of all from the lesser one; below, either will do
}

// each calls f with the piece of [off, off+n) that lies in each part.
func (s *parts) each(n int, off int64, f func(c Content, from, to int) (int, error)) (int, error) {
	cut := int(min(max(s.watermark.Load()-off, 0), int64(n)))
	done, err := f(s.low, 0, cut)
	if err != nil || done < cut {
		return done, err
	}
	more, err := f(s.high, cut, n)
	return done + more, err
}

func (s *parts) ReadAt(p []byte, off int64) (int, error) {
	defer s.lock.Release(s.lock.Acquire(off, off+int64(len(p)), true))
	return s.each(len(p), off, func(c Content, from, to int) (int, error) { return c.ReadAt(p[from:to], off+int64(from)) })
}

func (s *parts) PeekAt(p []byte, off int64) (int, error) { return s.ReadAt(p, off) }

func (s *parts) WriteAt(p []byte, off int64, d cryptfile.Durability) (int, error) {
	defer s.lock.Release(s.lock.Acquire(off, off+int64(len(p)), false))
	return s.each(len(p), off, func(c Content, from, to int) (int, error) { return c.WriteAt(p[from:to], off+int64(from), d) })
}

func (s *parts) both(f func(Content) error) error { return errors.Join(f(s.low), f(s.high)) }

func (s *parts) Truncate(size int64) error { return s.high.Truncate(size) }
func (s *parts) Sync(d cryptfile.Durability) error {
	return s.both(func(c Content) error { return c.Sync(d) })
}
func (s *parts) Punch(off, n int64) error        { return s.high.Punch(off, n) }
func (s *parts) Zero(off, n int64, k bool) error { return s.high.Zero(off, n, k) }
func (s *parts) Allocate(off, n int64, k bool) error {
	return s.high.Allocate(off, n, k)
}
func (s *parts) Seek(off int64, whence int) (int64, error) { return s.high.Seek(off, whence) }
func (s *parts) Size() (int64, error)                      { return s.high.Size() }
func (s *parts) Close() error                              { return s.both(Content.Close) }
func (s *parts) SyncFailure() *cryptfile.SyncFailure       { return s.high.SyncFailure() }
func (s *parts) UseDirect(change int)                      { s.low.UseDirect(change); s.high.UseDirect(change) }
func (s *parts) CountReads()                               { s.low.CountReads(); s.high.CountReads() }

// step moves the last bytes below the watermark, under a hold of them.
func (s *parts) step(n int64) error {
	to := s.watermark.Load()
	from := max(to-n, 0)
	defer s.lock.Release(s.lock.Acquire(from, rangelock.NoUnit, false))
	p := make([]byte, to-from)
	if _, err := s.low.ReadAt(p, from); err != nil {
		return err
	}
	if _, err := s.high.WriteAt(p, from, cryptfile.Volatile); err != nil {
		return err
	}
	s.watermark.Store(from)
	return nil
}

// TestTwoFiles: a File serves a content of two files as any other, while the border between the two
// moves.
func TestTwoFiles(t *testing.T) {
	const size = 64 << 10
	want := make([]byte, size)
	for i := range want {
		want[i] = byte(rand.Uint32())
	}
	carrier := osFile(t, "")
	low, high := OpenClear(osFile(t, string(want)), backing.Clear, both), OpenClear(carrier, backing.Clear, both)
	if err := high.Truncate(size); err != nil {
		t.Fatal(err)
	}
	s := &parts{low: low, high: high}
	s.watermark.Store(size)
	f := &File{Content: s, carrier: carrier, Form: backing.Clear, Can: both}
	f.Join(true)
	f.CountReads()
	f.WantDirect(+1)
	var guests sync.WaitGroup
	for g := range 4 {
		guests.Go(func() { // each in its own quarter
			for range 500 {
				at := g*size/4 + rand.IntN(size/4-600)
				p := make([]byte, 1+rand.IntN(600))
				if n, err := f.ReadAt(p, int64(at)); n != len(p) || err != nil || !bytes.Equal(p, want[at:at+n]) {
					t.Errorf("read of %d at %d: %d, %v, or other bytes", len(p), at, n, err)
					return
				}
				for i := range p {
					p[i] = byte(rand.Uint32())
				}
				copy(want[at:], p)
				if n, err := f.WriteAt(p, int64(at), cryptfile.Volatile); n != len(p) || err != nil {
					t.Errorf("write: %d, %v", n, err)
					return
				}
			}
		})
	}
	for s.watermark.Load() > 0 {
		if err := s.step(512); err != nil {
			t.Fatal(err)
		}
	}
	guests.Wait()
	p := make([]byte, size)
	if n, err := high.ReadAt(p, 0); n != size || err != nil || !bytes.Equal(p, want) {
		t.Errorf("after all of it: %d, %v, or other bytes", n, err)
	}
	f.WantDirect(-1)
	if !f.Leave(true) {
		t.Error("holders are left")
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
}
