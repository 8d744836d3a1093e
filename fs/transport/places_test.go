package transport

import (
	"encoding/binary"
	"slices"
	"sync"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// readRequest returns a worker that has read a request of n bytes.
func readRequest(t *testing.T, op uint32, unique uint64, n int) *worker {
	t.Helper()
	w, err := newWorker()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.free)
	*w.header() = fuse.InHeader{Length: uint32(n), Opcode: op, Unique: unique}
	for i := inHeaderSize; i < n; i++ {
		w.in[i] = byte(i)
	}
	return w
}

func holdRequest(t *testing.T, p *places, op uint32, unique uint64, n int) {
	t.Helper()
	h, err := newHeld(readRequest(t, op, unique, n), 7, n)
	if err != nil {
		t.Fatal(err)
	}
	if p.hold(h) {
		t.Fatalf("request %d of opcode %d was given a place", unique, op)
	}
}

// fill takes all places of an opcode.
func fill(p *places, op uint32) {
	for p.take(op) {
	}
}

func TestPlacesInOrder(t *testing.T) {
	const n = inHeaderSize + 5000
	var p places
	fill(&p, opWrite)
	for unique := uint64(1); unique <= 3; unique++ {
		holdRequest(t, &p, opWrite, unique, n)
	}
	if !p.take(opRead) {
		t.Error("a READ finds no place beside WRITEs")
	}
	want := readRequest(t, opWrite, 0, n)
	got := readRequest(t, opOpen, 0, inHeaderSize)
	for unique := uint64(1); unique <= 3; unique++ {
		h := p.pass(opWrite)
		if h == nil || h.unique != unique || h.fd != 7 {
			t.Fatalf("a place was passed to %+v, want request %d", h, unique)
		}
		want.header().Unique = unique
		if length := h.moveTo(got); length != n || !slices.Equal(got.in[:n], want.in[:n]) {
			t.Errorf("request %d was held as %d other bytes", unique, length)
		}
	}
	if p.bytes.Load() != 0 {
		t.Errorf("%d bytes counted of nothing", p.bytes.Load())
	}
	for range mostTransfers {
		if h := p.pass(opWrite); h != nil {
			t.Fatalf("a place was passed to %+v", h)
		}
	}
	if !p.take(opWrite) {
		t.Error("no place is free when all are answered")
	}
}

// TestCounted: every byte sent by callers counts, except in requests during which fs may wait for
// pages.
func TestCounted(t *testing.T) {
	var p places
	for _, c := range []struct {
		op   uint32
		n    int
		want int64
	}{
		{opOpen, 48, 0},
		{opLookup, 300, 0},
		{opRelease, 64, 0},
		{opRead, 80, 0},
		{opWrite, 80 + 512, 4096},
		{opWrite, 80 + 4096, 8192},
		{opWrite, 80 + maxWrite, maxWrite + 4096},
		{opSetxattr, 65536 + 100, 65536 + 4096},
	} {
		fill(&p, c.op)
		holdRequest(t, &p, c.op, 1, c.n)
		if got := p.bytes.Load(); got != c.want {
			t.Errorf("opcode %d, %d bytes: counted as %d, want %d", c.op, c.n, got, c.want)
		}
		p.pass(c.op).free()
	}
	fill(&p, opWrite)
	for unique := uint64(0); !p.full(); unique++ {
		holdRequest(t, &p, opWrite, unique, 80+maxWrite)
		if p.bytes.Load() > mostHeld+2*maxWrite {
			t.Fatalf("%d bytes are held, and more is read", p.bytes.Load())
		}
	}
	p.close()
	if p.full() || len(p.held) > 0 {
		t.Error("something is held after the end")
	}
}

func TestInterruptHeld(t *testing.T) {
	var p places
	for _, op := range []uint32{opOpen, opRelease, opReleasedir} {
		fill(&p, op)
		holdRequest(t, &p, op, uint64(op), 64)
	}
	if h, found := p.interrupt(99); h != nil || found {
		t.Errorf("found %+v, %v: nothing such is held", h, found)
	}
	if h, found := p.interrupt(opOpen); h == nil || !found || p.pass(opOpen) != nil {
		t.Errorf("an OPEN: %+v, %v, want it taken out", h, found)
	}
	for _, op := range []uint32{opRelease, opReleasedir} {
		if h, found := p.interrupt(uint64(op)); h != nil || !found || p.pass(op) == nil {
			t.Errorf("a RELEASE: %+v, %v, want it to stay", h, found)
		}
	}
}

// TestNoPlaceIsLost: requests of several readers: none is forgotten, and no more are under way
// than there are places.
func TestNoPlaceIsLost(t *testing.T) {
	const readers, each = mostOthers * 3, 300
	var p places
	var running sync.WaitGroup
	under := make(chan struct{}, mostOthers)
	answered := make(chan uint64, readers*each)
	answer := func(in []byte) {
		select {
		case under <- struct{}{}:
		default:
			t.Error("more requests are under way than there are places")
			return
		}
		answered <- binary.NativeEndian.Uint64(in)
		<-under
	}
	for r := range readers {
		running.Go(func() {
			for i := range each {
				unique := uint64(r*each + i)
				in := binary.NativeEndian.AppendUint64(nil, unique)
				if !p.take(opOpen) && !p.hold(&held{op: opOpen, unique: unique, in: in}) {
					continue
				}
				answer(in)
				for h := p.pass(opOpen); h != nil; h = p.pass(opOpen) {
					answer(h.in)
				}
			}
		})
	}
	running.Wait()
	if len(answered) != readers*each || p.taken[opOpen] != 0 {
		t.Errorf("%d of %d requests were answered; %d places are taken", len(answered), readers*each, p.taken[opOpen])
	}
}
