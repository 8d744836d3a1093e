package move

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"vmcryptfs/fs/cryptfile"
	"vmcryptfs/fs/cryptfile/faultfile"
	"vmcryptfs/integration/tally"
	"vmcryptfs/keys"
	"vmcryptfs/layout"
)

// side is the key and the header of an encrypted half.
type side struct {
	dek    *keys.DEK
	header layout.Header
}

func newSide(t *testing.T) side {
	t.Helper()
	dek, err := keys.NewDEK()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(dek.Wipe)
	return side{dek, layout.Header{Generation: 1, FileID: keys.NewFileID()}}
}

// key is a DEK of its own, as Open takes over.
func (s side) key(t *testing.T) *keys.DEK {
	t.Helper()
	dek, err := keys.NewDEK()
	if err != nil {
		t.Fatal(err)
	}
	copy(dek.Bytes(), s.dek.Bytes())
	return dek
}

// scene is a file at the begin of a move.
type scene struct {
	kind layout.MoveKind
	id   layout.FileID
	s, d side
}

func newScene(t *testing.T, kind layout.MoveKind) *scene {
	return &scene{kind: kind, id: keys.NewFileID(), s: newSide(t), d: newSide(t)}
}

func (x *scene) carrier() side {
	if x.kind == layout.MoveDecrypt {
		return x.s
	}
	return x.d
}

// half opens b as S or D.
func (x *scene) half(t *testing.T, b cryptfile.Backing, isS bool) Half {
	clear := x.kind == layout.MoveEncrypt && isS || x.kind == layout.MoveDecrypt && !isS
	if clear {
		return Half{Backing: b}
	}
	k := x.d
	if isS {
		k = x.s
	}
	h := Half{Backing: b, DEK: k.key(t)}
	if x.kind == layout.MoveDeep && isS {
		h.ID = k.header.FileID
	}
	return h
}

// begun makes the disk after the begin of a move: files "S" and "D" with the content.
func (x *scene) begun(t *testing.T, content []byte) *faultfile.Disk {
	t.Helper()
	disk := faultfile.New()
	w := floor(int64(len(content)))
	for name, isS := range map[string]bool{"S": true, "D": false} {
		b := disk.Create()
		must(t, disk.Link(b, name))
		h := x.half(t, b, isS)
		if h.DEK != nil {
			k := x.d
			if isS {
				k = x.s
			}
			header := k.header
			if k.header.FileID == x.carrier().header.FileID {
				header.Mark = x.id
			}
			k.dek.Seal(&header)
			must(t, cryptfile.Format(b, &header))
		}
		half, err := newHalf(b, h.DEK)
		must(t, err)
		if isS {
			write(t, half, content[:w], 0)
		} else {
			must(t, half.Truncate(int64(len(content))))
			write(t, half, content[w:], w)
		}
	}
	carrier := "D"
	if x.kind == layout.MoveDecrypt {
		carrier = "S"
	}
	r := layout.MoveRecord{Kind: x.kind, Sequence: 1, Move: x.id, Carrier: x.carrier().header.FileID, Watermark: w}
	if x.kind == layout.MoveDeep {
		r.Companion = x.s.header.FileID
	}
	x.carrier().dek.SealRecord(&r)
	_, err := disk.Open(carrier).WriteAt(r.AppendRecord(nil), layout.RecordAOffset, cryptfile.Volatile)
	must(t, err)
	disk.Record()
	return disk
}

// open opens the move as the next process does.
func (x *scene) open(t *testing.T, disk *faultfile.Disk) (*Pair, error) {
	t.Helper()
	s, d := x.half(t, disk.Open("S"), true), x.half(t, disk.Open("D"), false)
	carrier, companion := d, s
	if x.kind == layout.MoveDecrypt {
		carrier, companion = s, d
	}
	header := layout.Header{FileID: x.carrier().header.FileID, Mark: x.id}
	f, err := Find(carrier.Backing, &header, x.carrier().dek)
	if err != nil {
		return nil, err
	}
	p, err := Open(f, carrier, companion)
	if err != nil {
		return nil, err
	}
	p.sizes = sizes{zone: 3 * 512, chunk: 1024, hole: 2048, back: 1536}
	return p, nil
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

type writer interface {
	WriteAt([]byte, int64, cryptfile.Durability) (int, error)
}

func write(t *testing.T, c writer, b []byte, off int64) {
	t.Helper()
	if n, err := c.WriteAt(bytes.Clone(b), off, cryptfile.Volatile); n != len(b) || err != nil {
		t.Fatalf("WriteAt(%d bytes, %d) = %d, %v", len(b), off, n, err)
	}
}

func read(t *testing.T, p *Pair) []byte {
	t.Helper()
	size, err := p.Size()
	must(t, err)
	b := make([]byte, size+700)
	n, err := p.ReadAt(b, 0)
	if err != nil || int64(n) != size {
		t.Fatalf("ReadAt = %d, %v, want %d", n, err, size)
	}
	return b[:n]
}

// pattern returns n bytes that differ from those of another seed at each place.
func pattern(n int, seed byte) []byte {
	p := make([]byte, n)
	for i := range p {
		if p[i] = byte(i*7+i/512*13) ^ seed; p[i] == 0 {
			p[i] = seed | 1
		}
	}
	return p
}

func resized(p []byte, n int) []byte {
	q := make([]byte, n)
	copy(q, p)
	return q
}

// change is one operation on a file that moves, with a plain file's content afterwards.
type change struct {
	what  string
	do    func(*Pair) error
	after func([]byte) []byte
	sync  bool // after the return, everything is durable
	// durable: after the return, the change is durable, and so are the changes before if they were.
	durable bool
}

func writing(off, n int, seed byte, d cryptfile.Durability) change {
	return change{
		what: fmt.Sprintf("write %d bytes at %d, durability %d", n, off, d),
		do: func(p *Pair) error {
			_, err := p.WriteAt(pattern(n, seed), int64(off), d)
			return err
		},
		after: func(p []byte) []byte {
			q := resized(p, max(len(p), off+n))
			copy(q[off:], pattern(n, seed))
			return q
		},
		durable: d != cryptfile.Volatile,
	}
}

func truncating(n int) change {
	return change{
		what:  fmt.Sprintf("truncate to %d", n),
		do:    func(p *Pair) error { return p.Truncate(int64(n)) },
		after: func(p []byte) []byte { return resized(p, n) },
	}
}

func blanking(off, n int, zero bool) change {
	return change{
		what: fmt.Sprintf("punch or zero (%t) %d bytes at %d", zero, n, off),
		do: func(p *Pair) error {
			if zero {
				return p.Zero(int64(off), int64(n), false)
			}
			return p.Punch(int64(off), int64(n))
		},
		after: func(p []byte) []byte {
			size := len(p)
			if zero {
				size = max(size, off+n)
			}
			q := resized(p, size)
			clear(q[min(off, size):min(off+n, size)])
			return q
		},
	}
}

func syncing() change {
	return change{what: "sync", do: func(p *Pair) error { return p.Sync(cryptfile.Data) }, after: bytes.Clone, sync: true}
}

func noPace(context.Context, int64) error { return nil }

func stepping() change {
	return change{what: "step", do: func(p *Pair) error {
		_, err := p.Step(context.Background(), noPace)
		return err
	}, after: bytes.Clone}
}

// copying copies a chunk into the zone, as Step does before it syncs.
func copying() change {
	return change{what: "copy", do: func(p *Pair) error {
		if p.zone.Load() <= 0 {
			return nil
		}
		if _, err := p.copyDown(make([]byte, p.sizes.chunk)); !errors.Is(err, errCutOff) && !errors.Is(err, errGivenUp) {
			return err
		}
		return nil
	}, after: bytes.Clone}
}

func turning(back bool) change {
	return change{what: fmt.Sprintf("turn %t", back), do: func(p *Pair) error { return p.Turn(back) }, after: bytes.Clone}
}

func backing() change {
	return change{what: "back", do: func(p *Pair) error {
		if !p.Returning() {
			return nil
		}
		_, err := p.Back(context.Background(), noPace)
		return err
	}, after: bytes.Clone}
}

// history is a plain file's content before the first change and after each.
type history struct {
	what     []string
	versions [][]byte
	ends     []int // recorded steps when the version was reached
	syncs    []bool
	refused  bool // a length that could not be taken back may show until a sync
}

func run(t *testing.T, disk *faultfile.Disk, p *Pair, start []byte, changes []change) history {
	h := history{versions: [][]byte{start}, ends: []int{0}, syncs: []bool{true}}
	for _, c := range changes {
		if err := c.do(p); err != nil {
			t.Fatalf("%v: %s: %v", h.what, c.what, err)
		}
		start = c.after(start)
		h.what = append(h.what, c.what)
		h.versions = append(h.versions, start)
		h.ends = append(h.ends, disk.Steps())
		h.syncs = append(h.syncs, c.sync || c.durable && h.syncs[len(h.syncs)-1])
		if got := read(t, p); !bytes.Equal(got, start) {
			t.Fatalf("%v: the content is wrong with no crash: size %d, want %d, first difference at %d", h.what, len(got), len(start), firstDifference(got, start))
		}
	}
	return h
}

func firstDifference(a, b []byte) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	return min(len(a), len(b))
}

// possible returns the versions that may show in a state.
func (h history) possible(s faultfile.State) [][]byte {
	first := 0
	for i, end := range h.ends {
		if end <= s.Steps && (h.syncs[i] || !s.Power && !h.refused) {
			first = i
		}
	}
	last := first
	for last+1 < len(h.ends) && h.ends[last] <= s.Steps { // with the one in hand
		last++
	}
	return h.versions[first : last+1]
}

// check opens the file of a state, reads it, takes the move to its end, forward or back, and reads
// it again.
func (h history) check(t *testing.T, x *scene, s faultfile.State) {
	t.Helper()
	p, err := x.open(t, s.Disk)
	if err != nil {
		t.Fatalf("%v: %s: %v", h.what, s.What, err)
	}
	defer p.Close()
	got := h.checkContent(t, p, s)
	if p.Returning() {
		for done := false; !done; {
			if done, err = p.Back(t.Context(), noPace); err != nil {
				t.Fatalf("%v: %s: back: %v", h.what, s.What, err)
			}
		}
		must(t, p.Return())
	} else {
		for done := false; !done; {
			if done, err = p.Step(t.Context(), noPace); err != nil {
				t.Fatalf("%v: %s: step: %v", h.what, s.What, err)
			}
		}
	}
	if now := read(t, p); !bytes.Equal(now, got) {
		t.Fatalf("%v: %s: the move changed the content at %d of %d, %d", h.what, s.What, firstDifference(now, got), len(got), len(now))
	}
	must(t, p.Truncate(int64(len(got)+1500)))
	if grown := read(t, p); !bytes.Equal(grown, resized(got, len(got)+1500)) {
		t.Fatalf("%v: %s: size %d: bytes past the end came back", h.what, s.What, len(got))
	}
}

func (h history) checkContent(t *testing.T, p *Pair, s faultfile.State) []byte {
	t.Helper()
	got, want := read(t, p), h.possible(s)
	if !sizePossible(len(got), want) && !(h.refused && slices.ContainsFunc(want, func(v []byte) bool { return int(ceil(int64(len(v)))) == len(got) })) {
		t.Fatalf("%v: %s: size %d", h.what, s.What, len(got))
	}
	for at := 0; at < len(got); at += 512 {
		unit := got[at:min(at+512, len(got))]
		if !unitPossible(unit, at, len(got), want) {
			t.Fatalf("%v: %s: size %d, W %d: unit %d is neither old nor new: % x…", h.what, s.What, len(got), p.Watermark(), at/512, unit[:min(16, len(unit))])
		}
	}
	return got
}

// unitPossible reports whether a unit is from one of the versions, with zeros past the version's
// end, or past the end of a later one: a file in clear may lose a write and keep the shrink after it.
// Where the size is from before the version, a shrink was lost, and the unit may have the bytes from
// before.
func unitPossible(unit []byte, at, size int, versions [][]byte) bool {
	for i, v := range versions {
		for _, later := range versions[i:] {
			v := v[:min(len(v), len(later))]
			k := min(max(len(v)-at, 0), len(unit))
			if !bytes.Equal(unit[:k], v[min(at, len(v)):min(at, len(v))+k]) {
				continue
			}
			past := func(v []byte) []byte {
				p := make([]byte, len(unit)-k)
				copy(p, v[min(at+k, len(v)):])
				return p
			}
			if bytes.Equal(unit[k:], past(nil)) ||
				sizePossible(size, versions[:i]) && slices.ContainsFunc(versions[:i], func(old []byte) bool {
					return bytes.Equal(unit[k:], past(old))
				}) {
				return true
			}
		}
	}
	return false
}

func sizePossible(n int, versions [][]byte) bool {
	for i, v := range versions {
		if n == len(v) {
			return true
		}
		if i > 0 {
			a, b := len(versions[i-1]), len(v)
			if n%512 == 0 && min(a, b) < n && n < max(a, b) {
				return true
			}
		}
	}
	return false
}

var kinds = []layout.MoveKind{layout.MoveEncrypt, layout.MoveDecrypt, layout.MoveDeep}

func randomChange(rng *rand.Rand, i int) change {
	size := func() int { return rng.IntN(13)*512 + []int{0, 0, 1, 100, 511}[rng.IntN(5)] }
	switch rng.IntN(12) {
	case 0, 1:
		return truncating(size())
	case 2, 3:
		return writing(size(), 1+rng.IntN(1500), byte(0x20+i), cryptfile.Durability(rng.IntN(3)))
	case 4:
		return blanking(size(), 1+rng.IntN(1500), rng.IntN(2) == 0)
	case 5:
		return syncing()
	case 6, 7:
		return stepping()
	case 8:
		return copying()
	case 9:
		return turning(rng.IntN(2) == 0)
	default:
		return backing()
	}
}

// TestCrashInMove: random requests beside a move, cut off by a kill or a power loss after any step.
func TestCrashInMove(t *testing.T) {
	t.Parallel()
	states, sequences := 0, 60
	if testing.Short() {
		sequences = 10
	}
	for _, kind := range kinds {
		x := newScene(t, kind)
		for seed := range sequences {
			rng := rand.New(rand.NewPCG(uint64(seed), uint64(kind)))
			start := pattern(rng.IntN(6000), 0x11)
			changes := make([]change, 6)
			for i := range changes {
				changes[i] = randomChange(rng, i)
			}
			disk := x.begun(t, start)
			p, err := x.open(t, disk)
			must(t, err)
			h := run(t, disk, p, start, changes)
			each := func(s faultfile.State) {
				states++
				h.check(t, x, s)
			}
			disk.Kills(each)
			disk.PowerLosses(2, each)
			must(t, p.Close())
		}
	}
	tally.Add(t, "crash states", states)
	t.Logf("%d states", states)
}
