package move

import (
	"bytes"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"testing"

	"vmcryptfs/fs/cryptfile"
	"vmcryptfs/fs/cryptfile/faultfile"
	"vmcryptfs/layout"
)

// hostile is what somebody with BACKING in his hands may make of a moving file.
type hostile struct {
	a, b []byte // the record slots
	// right: bit 0, the ids and the MAC of a are right; bit 1, of b; bit 2, also the companion's id.
	right            uint8
	carrierLen       int64 // stored, behind the header
	companionLen     int64 // stored, behind the header if there is one
	companionIsClear bool
}

// FuzzOpen: whatever lies in the record slots and however long the two files are, Find and Open
// end with an error or with a content of D's size, below the watermark S's bytes, above it D's.
func FuzzOpen(f *testing.F) {
	for k, kind := range kinds {
		for _, w := range []int64{0, 512, 1024, 4096, layout.MaxLogical - layout.MaxLogical%512, layout.AllInSource} {
			r := layout.MoveRecord{Kind: kind, Sequence: 3, Watermark: w}
			older := layout.MoveRecord{Kind: kind, Sequence: 2, Watermark: 4096, Back: w == 512}
			isClear := kind != layout.MoveDeep
			f.Add(uint8(k), r.AppendRecord(nil), older.AppendRecord(nil), uint8(7), int64(3512), int64(3000), isClear)
			f.Add(uint8(k), r.AppendRecord(nil), older.AppendRecord(nil), uint8(6), int64(700), int64(8192), isClear)
			f.Add(uint8(k), r.AppendRecord(nil), []byte(nil), uint8(5), int64(8192), int64(-1), !isClear)
		}
	}
	f.Fuzz(func(t *testing.T, kind uint8, a, b []byte, right uint8, carrierLen, companionLen int64, companionIsClear bool) {
		h := hostile{a, b, right, bound(carrierLen), bound(companionLen), companionIsClear}
		newScene(t, kinds[int(kind)%len(kinds)]).checkHostile(t, h)
	})
}

// bound keeps a length to what a file may have.
func bound(n int64) int64 { return int64(uint64(n) % layout.MaxLogical) }

// checkHostile opens the move of h as the next process does.
func (x *scene) checkHostile(t *testing.T, h hostile) {
	carrier, companion := x.plant(t, h)
	slots, err := cryptfile.ReadHeader(carrier)
	must(t, err)
	found, err := Find(carrier, slots.Header, x.carrier().dek)
	if want, ok := x.counting(t, carrier); ok != (err == nil) || ok && found.Record != want {
		t.Fatalf("found %+v, %v, want %t, %+v", found.Record, err, ok, want)
	}
	if err != nil {
		return
	}
	w := found.Record.Watermark
	fromCarrier, fromCompanion := &watched{File: carrier, t: t}, &watched{File: companion, t: t}
	other := Half{Backing: fromCompanion}
	if !h.companionIsClear {
		other.DEK, other.ID = x.companion().key(t), x.companion().header.FileID
	}
	p, err := Open(found, Half{Backing: fromCarrier, DEK: x.carrier().key(t)}, other)
	if err != nil {
		return
	}
	defer p.Close()
	s, d := fromCompanion, fromCarrier
	if found.Record.Kind == layout.MoveDecrypt {
		s, d = fromCarrier, fromCompanion
	}
	size, err := p.Size()
	must(t, err)
	if w != layout.AllInSource {
		s.watch(p.s, 0, w)
		d.watch(p.d, w, layout.MaxLogical)
		if own, err := p.d.Size(); err != nil || own != size {
			t.Fatalf("size %d, D's is %d, %v", size, own, err)
		}
	}
	p.checkParts(t, w, size)
	s.off, d.off = true, true
	x.finishHostile(t, p, w, size)
}

// checkParts reads the beginning, the end, and what lies around the watermark.
func (p *Pair) checkParts(t *testing.T, w, size int64) {
	t.Helper()
	for _, at := range []int64{0, w - 700, size - 700, size, layout.MaxLogical} {
		at = max(at, 0)
		got := make([]byte, 2000)
		n, err := p.ReadAt(got, at)
		if err != nil { // of a half that does not hold what its length says
			t.Fatalf("ReadAt(2000, %d) = %d, %v; W %d, size %d", at, n, err, w, size)
		}
		if want := max(0, min(2000, size-at)); int64(n) != want {
			t.Fatalf("ReadAt(2000, %d) = %d, want %d; W %d, size %d", at, n, want, w, size)
		}
		want := make([]byte, n)
		for _, r := range []struct {
			from     content
			low, end int64
		}{{p.s, at, min(at+int64(n), w)}, {p.d, max(at, w), at + int64(n)}} {
			if w == layout.AllInSource {
				r.from, r.low, r.end = p.s, at, at+int64(n)
			}
			if r.low < r.end {
				must(t, readWhole(r.from, want[r.low-at:r.end-at], r.low))
			}
		}
		if !bytes.Equal(got[:n], want) {
			t.Fatalf("at %d, W %d, size %d: another content than S's and D's", at, w, size)
		}
	}
}

// finishHostile takes a small file to the end of its move: the content stays.
func (x *scene) finishHostile(t *testing.T, p *Pair, w, size int64) {
	const small = 64 << 10
	if w == layout.AllInSource || w > small || size > small {
		return
	}
	p.sizes = sizes{zone: 3 * 512, chunk: 1024, hole: 2048, back: 1536}
	before := read(t, p)
	if err := x.finish(t, p); err != nil {
		t.Fatalf("finish: %v; W %d, size %d", err, w, size)
	}
	if after := read(t, p); !bytes.Equal(before, after) {
		t.Fatalf("the end of the move changed the content; W %d, size %d", w, size)
	}
}

func (x *scene) companion() side {
	if x.kind == layout.MoveDecrypt {
		return x.d
	}
	return x.s
}

// plant makes the two files of h, whose content begins with different bytes.
func (x *scene) plant(t *testing.T, h hostile) (carrier, companion *faultfile.File) {
	t.Helper()
	disk := faultfile.New()
	carrier, companion = disk.Create(), disk.Create()
	x.plantHalf(t, carrier, x.carrier(), x.id, h.carrierLen, 0x11)
	if h.companionIsClear {
		must(t, companion.Truncate(h.companionLen))
		write(t, companion, pattern(int(min(h.companionLen, 5000)), 0x22), 0)
	} else {
		x.plantHalf(t, companion, x.companion(), layout.FileID{}, h.companionLen, 0x22)
	}
	for i, record := range [][]byte{h.a, h.b} {
		block := make([]byte, layout.RecordBlock)
		copy(block, record)
		if h.right>>i&1 != 0 {
			x.makeRight(t, block[:layout.RecordSize], h.right&4 != 0 && !h.companionIsClear)
		}
		write(t, carrier, block, recordOffsets[i])
	}
	return carrier, companion
}

// plantHalf makes an encrypted file of a stored length.
func (x *scene) plantHalf(t *testing.T, b *faultfile.File, k side, mark layout.FileID, stored int64, seed byte) {
	t.Helper()
	header := k.header
	header.Mark = mark
	k.dek.Seal(&header)
	must(t, cryptfile.Format(b, &header))
	half, err := newHalf(b, k.key(t))
	must(t, err)
	if n := min(stored, 5000); n > 0 {
		write(t, half, pattern(int(n), seed), 0)
	}
	must(t, half.Close())
	must(t, b.Truncate(layout.DataOffset+stored))
}

// counting is the record that counts, by the words of the format; ok is false if there is none, or a
// newer program's.
func (x *scene) counting(t *testing.T, carrier *faultfile.File) (best layout.MoveRecord, ok bool) {
	t.Helper()
	for _, off := range recordOffsets {
		b := make([]byte, layout.RecordSize)
		_, err := carrier.ReadAt(b, off)
		must(t, err)
		right := bytes.Clone(b)
		x.makeRight(t, right, false)
		r, err := layout.DecodeRecord(b)
		switch {
		case errors.Is(err, layout.ErrUnsupported):
			return best, false
		case err != nil, !bytes.Equal(b, right):
		case r.Sequence > best.Sequence:
			best, ok = *r, true
		}
	}
	return best, ok
}

// makeRight puts the ids of the move and the carrier, perhaps the companion's, and the MAC into a
// record of any bytes.
func (x *scene) makeRight(t *testing.T, record []byte, companion bool) {
	t.Helper()
	k := x.carrier()
	copy(record[24:], x.id[:])
	copy(record[40:], k.header.FileID[:])
	if companion {
		id := x.companion().header.FileID
		copy(record[56:], id[:])
	}
	key, err := hkdf.Key(sha256.New, k.dek.Bytes(), k.header.FileID[:], "vmcryptfs move v1", 32)
	must(t, err)
	mac := hmac.New(sha256.New, key)
	mac.Write(record[:480])
	copy(record[480:], mac.Sum(nil))
}

// watched is a file of which only a range of the content may be read.
type watched struct {
	*faultfile.File
	t        *testing.T
	watching bool
	off      bool
	from, to int64 // stored
}

func (w *watched) watch(h *half, from, to int64) {
	if h.dek != nil {
		from, to = from+layout.DataOffset, to+layout.DataOffset
	}
	w.watching, w.from, w.to = true, from, to
}

// ReadAt is the file's.
func (w *watched) ReadAt(p []byte, off int64) (int, error) {
	if w.watching && !w.off && len(p) > 0 && (off < w.from || off+int64(len(p)) > w.to) {
		w.t.Errorf("read of %d bytes at %d, outside %d…%d", len(p), off, w.from, w.to)
	}
	return w.File.ReadAt(p, off)
}
