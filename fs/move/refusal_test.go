package move

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"golang.org/x/sys/unix"

	"vmcryptfs/fs/cryptfile/faultfile"
	"vmcryptfs/integration/tally"
)

// refuser is a Fault that refuses some of the steps while on.
type refuser struct {
	rng    *rand.Rand
	on     bool
	synced bool // a sync, or a durable write, was refused
}

func (r *refuser) fault(s faultfile.Step) (int64, error) {
	if !r.on || r.rng.IntN(4) > 0 {
		return 0, nil
	}
	errno := []unix.Errno{unix.EIO, unix.ENOSPC, unix.EDQUOT}[r.rng.IntN(3)]
	if s.Op == faultfile.Sync || s.Op == faultfile.Write && s.Durable != 0 {
		r.synced = true
	}
	if s.Op == faultfile.Write {
		return r.rng.Int64N(s.Len+1) / 512 * 512, errno
	}
	return 0, errno
}

// tried is change c as BACKING allows: what a refused change leaves is read back, and must be old or
// new in each unit.
func tried(t *testing.T, h *history, p *Pair, c change, start []byte, refused bool) []byte {
	t.Helper()
	err := c.do(p)
	want := c.after(start)
	h.what = append(h.what, fmt.Sprintf("%s: %v", c.what, err))
	if err == nil {
		return want
	}
	if !refused {
		t.Fatalf("%v: failed with nothing refused", h.what)
	}
	return nil
}

// TestRefusals: random requests beside a move while BACKING refuses some calls; then a crash, or the
// move's end.
func TestRefusals(t *testing.T) {
	t.Parallel()
	states, sequences := 0, 80
	if testing.Short() {
		sequences = 10
	}
	for _, kind := range kinds {
		x := newScene(t, kind)
		for seed := range sequences {
			states += x.refusals(t, rand.New(rand.NewPCG(uint64(seed), 100+uint64(kind))))
		}
	}
	tally.Add(t, "crash states", states)
	t.Logf("%d states", states)
}

func (x *scene) refusals(t *testing.T, rng *rand.Rand) (states int) {
	start := pattern(rng.IntN(6000), 0x11)
	disk := x.begun(t, start)
	p, err := x.open(t, disk)
	must(t, err)
	defer p.Close()
	r := &refuser{rng: rng}
	disk.Fault = r.fault
	h := history{versions: [][]byte{start}, ends: []int{0}, syncs: []bool{true}, refused: true}
	for i := range 8 {
		c := randomChange(rng, i)
		r.on = rng.IntN(2) == 0
		now := tried(t, &h, p, c, start, r.on)
		r.on = false
		got := read(t, p)
		failed := now == nil
		if failed {
			now = c.after(start)
			checkEither(t, h, got, start, now)
			h.add(now, disk.Steps(), false) // may come to disk yet
		} else if !bytes.Equal(got, now) {
			t.Fatalf("%v: the content is wrong: size %d, want %d, first difference at %d", h.what, len(got), len(now), firstDifference(got, now))
		}
		start = got
		h.add(got, disk.Steps(), !failed && !r.synced && (c.sync || c.durable && h.syncs[len(h.syncs)-1]))
	}
	each := func(s faultfile.State) {
		states++
		s.Disk.Fault = nil
		h.check(t, x, s)
	}
	disk.Kills(each)
	disk.PowerLosses(1, each)
	return states
}

func (h *history) add(version []byte, end int, synced bool) {
	h.versions = append(h.versions, version)
	h.ends = append(h.ends, end)
	h.syncs = append(h.syncs, synced)
}

// checkEither checks what a refused change has left: each byte is old or new.
func checkEither(t *testing.T, h history, got, before, after []byte) {
	t.Helper()
	versions := [][]byte{before, after}
	if !sizePossible(len(got), versions) && (len(got)-len(before))*(len(got)-len(after)) > 0 {
		t.Fatalf("%v: size %d, neither %d nor %d", h.what, len(got), len(before), len(after))
	}
	at := func(p []byte, i int) byte {
		if i < len(p) {
			return p[i]
		}
		return 0
	}
	for i, c := range got {
		if c != at(before, i) && c != at(after, i) {
			t.Fatalf("%v: byte %d of %d is neither old nor new", h.what, i, len(got))
		}
	}
}
