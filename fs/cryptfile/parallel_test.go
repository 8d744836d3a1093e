package cryptfile_test

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"

	"vmcryptfs/fs/cryptfile"
	"vmcryptfs/fs/cryptfile/faultfile"
	"vmcryptfs/layout"
)

// stamped returns units, each holding one number over and over: in a unit mixed of two writes, or
// written by half, the numbers differ.
func stamped(units int, stamp uint64) []byte {
	p := make([]byte, units*512)
	for i := 0; i < len(p); i += 8 {
		binary.LittleEndian.PutUint64(p[i:], stamp)
	}
	return p
}

// wholeUnits reports whether each unit of p is from one write, or a hole.
func wholeUnits(p []byte) bool {
	for at := 0; at+512 <= len(p); at += 512 {
		if unit := p[at : at+512]; !bytes.Equal(unit, stamped(1, binary.LittleEndian.Uint64(unit))) {
			return false
		}
	}
	return true
}

// Readers and writers work on the same units, and others move the end of the file: no unit is
// ever seen half old and half new.
func TestParallelOverlapping(t *testing.T) {
	t.Parallel()
	x := newFixture(t)
	d := faultfile.New()
	d.Yield = true
	b := d.Create()
	f := x.create(t, b)
	write(t, f, stamped(32, 1), 0)
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(g), 3))
			for i := range 60 {
				unit, n := rng.IntN(40), 1+rng.IntN(8)
				var err error
				switch g % 4 {
				case 0, 1:
					_, err = f.WriteAt(stamped(n, uint64(g)<<32|uint64(i)), int64(unit)*512, cryptfile.Volatile)
				case 2:
					p := make([]byte, n*512)
					var got int
					if got, err = f.ReadAt(p, int64(unit)*512); !wholeUnits(p[:got]) {
						t.Errorf("read of %d units at %d saw a torn one", n, unit)
					}
				case 3:
					if i%4 == 0 {
						err = f.Truncate(int64(unit) * 512)
					} else {
						err = f.Punch(int64(unit)*512, int64(n)*512)
					}
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if !wholeUnits(content(t, f)) {
		t.Error("a torn unit is left")
	}
	if size, _ := b.Size(); size != layout.DataOffset+f.Size() {
		t.Errorf("size %d, stored %d", f.Size(), size-layout.DataOffset)
	}
}

// Every goroutine writes bytes of its own, in units shared with others, and appends past the end:
// no byte is lost.
func TestParallelDisjoint(t *testing.T) {
	t.Parallel()
	const goroutines, rounds, piece = 8, 40, 100
	x := newFixture(t)
	d := faultfile.New()
	d.Yield = true
	f := x.create(t, d.Create())
	var wg sync.WaitGroup
	for g := range goroutines {
		wg.Go(func() {
			for i := range rounds {
				off := int64((i*goroutines + g) * piece)
				p := bytes.Repeat([]byte{byte(g + 1)}, piece)
				if _, err := f.WriteAt(p, off, cryptfile.Volatile); err != nil {
					t.Error(err)
				}
				got := make([]byte, piece)
				if n, err := f.ReadAt(got, off); n != piece || err != nil || got[0] != byte(g+1) || !bytes.Equal(got, bytes.Repeat(got[:1], piece)) {
					t.Errorf("ReadAt after a write = %d, %v, or others' bytes", n, err)
				}
			}
		})
	}
	wg.Wait()
	got := content(t, f)
	if len(got) != goroutines*rounds*piece {
		t.Fatalf("size %d, want %d", len(got), goroutines*rounds*piece)
	}
	for at, c := range got {
		if want := byte(at/piece%goroutines + 1); c != want {
			t.Fatalf("byte %d is %d, want %d", at, c, want)
		}
	}
}

// A file shrinks while writes wait for units past the new end. Each of these writes then moves
// the end of the file, so they must not run at once.
func TestParallelShrink(t *testing.T) {
	t.Parallel()
	x := newFixture(t)
	for range 200 {
		d := faultfile.New()
		b := d.Create()
		f := x.create(t, b)
		write(t, f, stamped(32, 1), 0)
		d.Yield = true
		shrinking := make(chan struct{})
		d.Fault = func(s faultfile.Step) (int64, error) {
			if s.Op == faultfile.Truncate && s.Off == layout.DataOffset+512 {
				close(shrinking)
				for range 100 {
					runtime.Gosched() // lets the writes queue up
				}
			}
			return 0, nil
		}
		var wg sync.WaitGroup
		wg.Go(func() { must(t, f.Truncate(512)) })
		<-shrinking
		for i, off := range []int64{512, 4096, 8192} {
			wg.Go(func() { write(t, f, stamped(i+1, uint64(i+2)), off) })
		}
		wg.Wait()
		size, _ := b.Size()
		if want := int64(8192 + 3*512); f.Size() != want || size != layout.DataOffset+want {
			t.Fatalf("size %d, stored %d, want %d", f.Size(), size-layout.DataOffset, want)
		}
		must(t, f.Close())
	}
}

// An append chooses its hold by an end of file that then moves back. The hold taken must reach
// back as far: the append cleans the new tail, where other writers write.
func TestParallelShrinkAndAppend(t *testing.T) {
	t.Parallel()
	x := newFixture(t)
	for range 200 {
		d := faultfile.New()
		f := x.create(t, d.Create())
		write(t, f, stamped(32, 1), 0)
		d.Yield = true
		shrinking := make(chan struct{})
		d.Fault = func(s faultfile.Step) (int64, error) {
			if s.Op == faultfile.Truncate && s.Off == layout.DataOffset+1024 {
				close(shrinking)
				for range 100 {
					runtime.Gosched()
				}
			}
			return 0, nil
		}
		var wg sync.WaitGroup
		wg.Go(func() { must(t, f.Truncate(700)) })
		<-shrinking
		wg.Go(func() { write(t, f, stamped(1, 2), 40*512) })
		for i := range 4 {
			wg.Go(func() { write(t, f, pattern(40, byte(i)), int64(512+40*i)) })
		}
		wg.Wait()
		want := resized(stamped(2, 1)[:700], 41*512)
		copy(want[40*512:], stamped(1, 2))
		for i := range 4 {
			copy(want[512+40*i:], pattern(40, byte(i)))
		}
		if !bytes.Equal(content(t, f), want) {
			t.Fatal("a write was lost, or old bytes came back")
		}
		must(t, f.Close())
	}
}

// An operation on free units does not wait for a stuck one elsewhere.
func TestNoWaitForOthers(t *testing.T) {
	t.Parallel()
	x := newFixture(t)
	d, f := x.newDisk(t, pattern(64<<10, 1))
	stuck, reached := make(chan struct{}), make(chan struct{})
	d.Fault = func(s faultfile.Step) (int64, error) {
		if s.Op == faultfile.Write && s.Off == 1<<20+8192 {
			close(reached)
			<-stuck
		}
		return 0, nil
	}
	done := make(chan error)
	go func() {
		_, err := f.WriteAt(pattern(4096, 2), 8192, cryptfile.Volatile)
		done <- err
	}()
	<-reached
	write(t, f, pattern(4096, 3), 4096) // each write would hang the test if blocked
	write(t, f, pattern(4096, 3), 12288)
	if _, err := f.ReadAt(make([]byte, 8192), 0); err != nil {
		t.Error(err)
	}
	must(t, f.Truncate(100<<10))
	must(t, f.Truncate(16<<10))
	must(t, f.Sync(cryptfile.Data))
	close(stuck)
	must(t, <-done)
}

// Close waits for a write under way.
func TestCloseWaits(t *testing.T) {
	t.Parallel()
	x := newFixture(t)
	d, f := x.newDisk(t, pattern(8192, 1))
	stuck, reached := make(chan struct{}), make(chan struct{})
	d.Fault = func(s faultfile.Step) (int64, error) {
		close(reached)
		<-stuck
		return 0, nil
	}
	written := make(chan error, 1)
	go func() {
		_, err := f.WriteAt(pattern(512, 2), 512, cryptfile.Volatile)
		written <- err
	}()
	<-reached
	closed := make(chan error)
	go func() { closed <- f.Close() }()
	select {
	case err := <-closed:
		t.Errorf("Close returned before the write: %v", err)
	default:
	}
	close(stuck)
	must(t, <-closed)
	must(t, <-written)
}
