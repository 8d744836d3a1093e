package move

import (
	"bytes"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"vmcryptfs/fs/cryptfile"
	"vmcryptfs/layout"
)

// onFiles is a Pair on two files of the host's file system, at the begin of a move.
func (x *scene) onFiles(t *testing.T, content []byte) *Pair {
	t.Helper()
	dir := t.TempDir()
	file := func(name string) *cryptfile.OSFile {
		fd, err := unix.Open(filepath.Join(dir, name), unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC, 0o600)
		must(t, err)
		return cryptfile.NewOSFile(fd)
	}
	halves := map[bool]Half{}
	for _, isS := range []bool{true, false} {
		b := file(map[bool]string{true: "S", false: "D"}[isS])
		h := x.half(t, b, isS)
		if h.DEK != nil {
			k := x.d
			if isS {
				k = x.s
			}
			header := k.header
			k.dek.Seal(&header)
			must(t, cryptfile.Format(b, &header))
		}
		halves[isS] = h
	}
	r := layout.MoveRecord{Kind: x.kind, Sequence: 1, Move: x.id, Carrier: x.carrier().header.FileID, Watermark: floor(int64(len(content)))}
	if x.kind == layout.MoveDeep {
		r.Companion = x.s.header.FileID
	}
	p, err := open(Found{Record: r}, halves[true], halves[false])
	must(t, err)
	w := floor(int64(len(content)))
	write(t, p.s, content[:w], 0)
	must(t, p.d.Truncate(int64(len(content))))
	write(t, p.d, content[w:], w)
	must(t, p.Sync(cryptfile.Full))
	p.sizes = sizes{zone: 64 << 10, chunk: 16 << 10, hole: 128 << 10, back: 32 << 10}
	return p
}

// TestBesideGuests: many guests, each with a part of the file, write, read, punch and sync while the
// move goes to its end, or half of the way and back; each finds what it wrote.
func TestBesideGuests(t *testing.T) {
	t.Parallel()
	for _, kind := range kinds {
		for _, back := range []bool{false, true} {
			t.Run(kind.String(), func(t *testing.T) {
				t.Parallel()
				newScene(t, kind).besideGuests(t, back)
			})
		}
	}
}

const (
	guests    = 4
	guestSize = 192<<10 + 300
)

func (x *scene) besideGuests(t *testing.T, back bool) {
	start := pattern(guests*guestSize, 0x11)
	p := x.onFiles(t, start)
	defer p.Close()
	var over atomic.Bool
	var all sync.WaitGroup
	want := bytes.Clone(start)
	for i := range guests {
		all.Go(func() { guest(t, p, want[i*guestSize:(i+1)*guestSize], int64(i*guestSize), uint64(i), &over) })
	}
	turn := int64(-1)
	if back {
		turn = int64(len(start) / 2)
	}
	must(t, moveUntil(t, p, turn))
	over.Store(true)
	all.Wait()
	if got := read(t, p); !bytes.Equal(got, want) {
		t.Errorf("%v, back %t: other content at %d", x.kind, back, firstDifference(got, want))
	}
	whole := p.d
	if back {
		must(t, p.Return())
		whole = p.s
	}
	got := make([]byte, len(want))
	must(t, readWhole(whole, got, 0))
	if !bytes.Equal(got, want) {
		t.Errorf("%v, back %t: other content in the one file at %d", x.kind, back, firstDifference(got, want))
	}
}

// moveUntil moves p to its end, or from the watermark turn on back.
func moveUntil(t *testing.T, p *Pair, turn int64) error {
	for {
		if p.Watermark() <= turn {
			if err := p.Turn(true); err != nil {
				return err
			}
			for {
				if done, err := p.Back(t.Context(), noPace); done || err != nil {
					return err
				}
			}
		}
		if done, err := p.Step(t.Context(), noPace); done || err != nil {
			return err
		}
	}
}

// guest changes its part of the file, at off, until over; mine is what the part holds.
func guest(t *testing.T, p *Pair, mine []byte, off int64, seed uint64, over *atomic.Bool) {
	rng := rand.New(rand.NewPCG(seed, 7))
	for n := 0; n < 20 || !over.Load(); n++ {
		at := rng.IntN(len(mine))
		size := min(1+rng.IntN(9000), len(mine)-at)
		part := mine[at : at+size]
		var err error
		switch rng.IntN(8) {
		case 0:
			clear(part)
			err = p.Punch(off+int64(at), int64(size))
		case 1:
			err = p.Sync(cryptfile.Data)
		case 2, 3, 4:
			copy(part, pattern(size, byte(rng.Uint32())))
			_, err = p.WriteAt(bytes.Clone(part), off+int64(at), cryptfile.Volatile)
		default:
			got := make([]byte, size)
			if _, err = p.ReadAt(got, off+int64(at)); err == nil && !bytes.Equal(got, part) {
				t.Errorf("guest at %d reads other bytes from %d on", off, off+int64(at+firstDifference(got, part)))
				return
			}
		}
		if err != nil {
			t.Error(err)
			return
		}
	}
}
