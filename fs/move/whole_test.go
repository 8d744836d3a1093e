package move

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"vmcryptfs/fs/cryptfile"
	"vmcryptfs/fs/cryptfile/faultfile"
	"vmcryptfs/integration/tally"
	"vmcryptfs/layout"
)

// names are a Dir over a disk: F, the companion and a temporary.
type names struct {
	faultfile.Dir
	exchange  bool
	companion string
	made      *faultfile.File
}

const temporary = "temporary"

func (x *scene) names(d *faultfile.Disk, exchange bool) *names {
	return &names{Dir: faultfile.Dir{Disk: d}, exchange: exchange, companion: layout.MoveName(x.id)}
}

func (n *names) CanExchange() bool { return n.exchange }

func (n *names) Create() (cryptfile.Backing, error) {
	n.made = n.Disk.Create()
	if n.exchange {
		return n.made, nil
	}
	return n.made, n.Link(n.made, temporary)
}

func (n *names) Discard() error { return n.removeIfThere(temporary) }

func (n *names) CreateCompanion() (cryptfile.Backing, error) {
	f := n.Disk.Create()
	return f, n.Link(f, n.companion)
}

func (n *names) LinkMade() error         { return n.Link(n.made, n.companion) }
func (n *names) Exchange() error         { return n.Dir.Exchange("F", n.companion) }
func (n *names) LinkF() error            { return n.Link(n.Open("F"), n.companion) }
func (n *names) ReplaceF() error         { return n.Publish(temporary, "F") }
func (n *names) RemoveCompanion() error  { return n.removeIfThere(n.companion) }
func (n *names) RestoreCompanion() error { return n.Publish(n.companion, "F") }

func (n *names) removeIfThere(name string) error {
	if n.Open(name) == nil {
		return nil
	}
	return n.Remove(name)
}

// whole makes a disk with F of the content, before any move.
func (x *scene) whole(t *testing.T, content []byte) *faultfile.Disk {
	t.Helper()
	d := faultfile.New()
	b := d.Create()
	must(t, d.Link(b, "F"))
	var dek = x.s.key(t)
	if x.kind == layout.MoveEncrypt {
		dek.Wipe()
		dek = nil
	} else {
		h := x.s.header
		dek.Seal(&h)
		must(t, cryptfile.Format(b, &h))
	}
	half, err := newHalf(b, dek)
	must(t, err)
	write(t, half, content, 0)
	must(t, half.Close())
	d.Record()
	return d
}

// sourceHalf opens F, which is not moving yet, as S.
func (x *scene) sourceHalf(t *testing.T, b cryptfile.Backing) Half { return x.half(t, b, true) }

// begin begins the move of F, with the steps that are the server's.
func (x *scene) begin(t *testing.T, d *faultfile.Disk, exchange bool) (*Pair, error) {
	t.Helper()
	n := x.names(d, exchange)
	p := Plan{ID: x.id, Kind: x.kind, Dir: n, Prepare: func(cryptfile.Backing) error { return nil }}
	s := x.sourceHalf(t, d.Open("F"))
	var pair *Pair
	var err error
	if x.kind == layout.MoveDecrypt {
		b := d.Open("F")
		if err = RecordAll(b, x.s.dek, x.id, x.s.header.FileID); err == nil {
			err = cryptfile.Mark(b, x.s.dek, x.id)
		}
		var f Found
		if err == nil {
			f, err = Find(b, &layout.Header{FileID: x.s.header.FileID, Mark: x.id}, x.s.dek)
		}
		if err != nil {
			must(t, closeHalf(s))
			return nil, err
		}
		pair, err = BeginClear(p, s, f)
	} else {
		p.Header, p.DEK = x.d.header, x.d.key(t)
		pair, err = BeginEncrypted(p, s)
	}
	if pair != nil {
		pair.sizes = sizes{zone: 3 * 512, chunk: 1024, hole: 2048, back: 1536}
	}
	return pair, err
}

// end ends the move, forward or back.
func (x *scene) end(d *faultfile.Disk, p *Pair, exchange bool) error {
	n := x.names(d, exchange)
	unmark := func() error { return cryptfile.Mark(d.Open("F"), x.carrier().dek, layout.FileID{}) }
	if (p.Watermark() == layout.AllInSource) != (x.kind == layout.MoveDecrypt) {
		return EndInCompanion(n, d.Open(n.companion))
	}
	if err := EndInCarrier(n, unmark); err != nil {
		return err
	}
	if x.kind != layout.MoveDecrypt {
		return ZeroRecords(d.Open("F"))
	}
	return nil
}

// recover does what the next process does with F: it reads the content, takes a move to its end, and
// returns the content before and after.
func (x *scene) recover(t *testing.T, s faultfile.State, exchange bool) (content, after []byte) {
	t.Helper()
	d := s.Disk
	n := x.names(d, exchange)
	f := d.Open("F")
	isEncrypted, err := cryptfile.IsEncrypted(f)
	must(t, err)
	if !isEncrypted {
		return x.unmarked(t, s, n, Half{Backing: f})
	}
	slots, err := cryptfile.ReadHeader(f)
	must(t, err)
	k := x.s
	if slots.Header.FileID == x.d.header.FileID {
		k = x.d
	}
	must(t, k.dek.Verify(slots.Header))
	if !slots.Header.Marked() {
		return x.unmarked(t, s, n, Half{Backing: f, DEK: k.key(t)})
	}
	found, err := Find(f, slots.Header, k.dek)
	if err != nil {
		t.Fatalf("%s: %v", s.What, err)
	}
	companion := d.Open(n.companion)
	switch w := found.Record.Watermark; {
	case w == layout.AllInSource && x.kind == layout.MoveDecrypt:
		must(t, n.RemoveCompanion())
		must(t, n.Sync())
		must(t, cryptfile.Mark(f, k.dek, layout.FileID{}))
	case w == layout.AllInSource:
		must(t, n.RestoreCompanion())
		must(t, n.Sync())
	case w == 0 && x.kind != layout.MoveDecrypt:
		must(t, n.RemoveCompanion())
		must(t, n.Sync())
		must(t, cryptfile.Mark(f, k.dek, layout.FileID{}))
	default:
		if companion == nil {
			t.Fatalf("%s: no companion at W %d", s.What, w)
		}
		return x.moving(t, s, exchange, found, f, companion)
	}
	return x.recover(t, s, exchange)
}

// unmarked is recover for a file that no move has begun, or whose move is over.
func (x *scene) unmarked(t *testing.T, s faultfile.State, n *names, h Half) (content, after []byte) {
	t.Helper()
	if companion := s.Disk.Open(n.companion); companion != nil {
		isEncrypted, err := cryptfile.IsEncrypted(companion)
		must(t, err)
		same := companion.Number() == s.Disk.Open("F").Number()
		if !same && !isEncrypted {
			t.Fatalf("%s: a companion in clear, and no carrier", s.What)
		}
		if !same {
			slots, err := cryptfile.ReadHeader(companion)
			if err != nil || slots.Header.Mark != x.id {
				t.Fatalf("%s: a companion beside a file that does not move: %v", s.What, err)
			}
		}
		must(t, n.RemoveCompanion())
	}
	half, err := newHalf(h.Backing, h.DEK)
	must(t, err)
	defer half.Close()
	size, err := half.Size()
	must(t, err)
	content = make([]byte, size)
	must(t, readWhole(half, content, 0))
	return content, content
}

// moving is recover for a Pair.
func (x *scene) moving(t *testing.T, s faultfile.State, exchange bool, found Found, f, companion *faultfile.File) (content, after []byte) {
	t.Helper()
	carrierIsS := x.kind == layout.MoveDecrypt
	p, err := Open(found, x.half(t, f, carrierIsS), x.half(t, companion, !carrierIsS))
	if err != nil {
		t.Fatalf("%s: %v", s.What, err)
	}
	p.sizes = sizes{zone: 3 * 512, chunk: 1024, hole: 2048, back: 1536}
	content = read(t, p)
	must(t, x.finish(t, p))
	must(t, x.end(s.Disk, p, exchange))
	must(t, p.Close())
	_, after = x.recover(t, s, exchange)
	return content, after
}

// finish takes a move to the last step before its end.
func (x *scene) finish(t *testing.T, p *Pair) error {
	if !p.Returning() {
		for {
			if done, err := p.Step(t.Context(), noPace); done || err != nil {
				return err
			}
		}
	}
	for {
		if done, err := p.Back(t.Context(), noPace); err != nil {
			return err
		} else if done {
			return p.Return()
		}
	}
}

// checkWhole checks a state of a whole move, and that no unit of the content is left in a file that
// no name leads to as content.
func (h history) checkWhole(t *testing.T, x *scene, s faultfile.State, exchange bool) {
	t.Helper()
	got, after := x.recover(t, s, exchange)
	want := h.possible(s)
	if !sizePossible(len(got), want) {
		t.Fatalf("%v: %s: size %d", h.what, s.What, len(got))
	}
	for at := 0; at < len(got); at += 512 {
		unit := got[at:min(at+512, len(got))]
		if !unitPossible(unit, at, len(got), want) {
			t.Fatalf("%v: %s: size %d: unit %d is neither old nor new: % x…", h.what, s.What, len(got), at/512, unit[:min(16, len(unit))])
		}
	}
	if !bytes.Equal(after, got) {
		t.Fatalf("%v: %s: the end of the move changed the content", h.what, s.What)
	}
	if s.Disk.Open(layout.MoveName(x.id)) != nil || s.Disk.Open("F") == nil {
		t.Fatalf("%v: %s: a companion is left", h.what, s.What)
	}
}

// TestCrashInWholeMove: a move from before its begin to after its end, forward and back, beside
// random requests.
func TestCrashInWholeMove(t *testing.T) {
	t.Parallel()
	states, sequences := 0, 24
	if testing.Short() {
		sequences = 4
	}
	for _, kind := range kinds {
		x := newScene(t, kind)
		for seed := range sequences {
			states += x.wholeMove(t, rand.New(rand.NewPCG(uint64(seed), 200+uint64(kind))))
		}
	}
	tally.Add(t, "crash states", states)
	t.Logf("%d states", states)
}

func (x *scene) wholeMove(t *testing.T, rng *rand.Rand) (states int) {
	start := pattern(rng.IntN(6000), 0x11)
	exchange := rng.IntN(2) == 0
	d := x.whole(t, start)
	p, err := x.begin(t, d, exchange)
	must(t, err)
	changes := make([]change, 4)
	for i := range changes {
		changes[i] = randomChange(rng, i)
	}
	changes = append(changes, change{what: "to the end", after: bytes.Clone, do: func(p *Pair) error {
		if err := x.finish(t, p); err != nil {
			return err
		}
		return x.end(d, p, exchange)
	}})
	h := run(t, d, p, start, changes)
	h.what = append([]string{fmt.Sprintf("exchange %t", exchange)}, h.what...)
	must(t, p.Close())
	each := func(s faultfile.State) {
		states++
		h.checkWhole(t, x, s, exchange)
	}
	d.Kills(each)
	d.PowerLosses(2, each)
	return states
}
