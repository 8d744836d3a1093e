package cryptfile_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"vmcryptfs/fs/cryptfile"
	"vmcryptfs/fs/cryptfile/faultfile"
	"vmcryptfs/integration/tally"
)

// change is one operation on a file, with a plain file's content afterwards.
type change struct {
	what  string
	do    func(*testing.T, *cryptfile.File)
	after func([]byte) []byte
	sync  bool // after the return, everything is durable
	// durable: after the return, the change is durable, and so are the changes before if they
	// were.
	durable bool
}

func writing(off, n int, seed byte, d cryptfile.Durability) change {
	return change{
		what: fmt.Sprintf("write %d bytes at %d, durability %d", n, off, d),
		do: func(t *testing.T, f *cryptfile.File) {
			if _, err := f.WriteAt(pattern(n, seed), int64(off), d); err != nil {
				t.Fatal(err)
			}
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
		do:    func(t *testing.T, f *cryptfile.File) { must(t, f.Truncate(int64(n))) },
		after: func(p []byte) []byte { return resized(p, n) },
	}
}

func blanking(off, n int, zero bool) change {
	return change{
		what: fmt.Sprintf("punch or zero (%t) %d bytes at %d", zero, n, off),
		do: func(t *testing.T, f *cryptfile.File) {
			if zero {
				must(t, f.Zero(int64(off), int64(n), false))
			} else {
				must(t, f.Punch(int64(off), int64(n)))
			}
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
	return change{
		what:  "sync",
		do:    func(t *testing.T, f *cryptfile.File) { must(t, f.Sync(cryptfile.Data)) },
		after: bytes.Clone,
		sync:  true,
	}
}

// history is a plain file's content before the first change and after each.
type history struct {
	what     []string
	versions [][]byte
	ends     []int // recorded steps when the version was reached
	syncs    []bool
}

// run does changes on a recording disk.
func run(t *testing.T, d *faultfile.Disk, f *cryptfile.File, start []byte, changes []change) history {
	h := history{versions: [][]byte{start}, ends: []int{0}, syncs: []bool{true}}
	for _, c := range changes {
		c.do(t, f)
		start = c.after(start)
		h.what = append(h.what, c.what)
		h.versions = append(h.versions, start)
		h.ends = append(h.ends, d.Steps())
		h.syncs = append(h.syncs, c.sync || c.durable && h.syncs[len(h.syncs)-1])
	}
	return h
}

// possible returns the versions that may show in a state: after a kill the versions around the
// step, after power loss also the versions since the last sync.
func (h history) possible(s faultfile.State) [][]byte {
	first := 0
	for i, end := range h.ends {
		if end <= s.Steps && (h.syncs[i] || !s.Power) {
			first = i
		}
	}
	last := first
	for last+1 < len(h.ends) && h.ends[last] < s.Steps {
		last++
	}
	if !s.Power && last+1 < len(h.ends) { // the one in hand
		last++
	}
	if s.Power {
		for last+1 < len(h.ends) && h.ends[last] <= s.Steps {
			last++
		}
	}
	return h.versions[first : last+1]
}

// check opens the file of a state and compares the file with design §3: each unit is old or new,
// the size is old or new or a multiple of 512 between, and nothing comes back past the end.
func (h history) check(t *testing.T, x *fixture, s faultfile.State) {
	t.Helper()
	f := x.open(t, s.Disk.Open("f"))
	defer f.Close()
	got, want := content(t, f), h.possible(s)
	if err := f.Warning(); err != nil {
		t.Fatalf("%v: %s: %v", h.what, s.What, err)
	}
	if !sizePossible(len(got), want) {
		t.Fatalf("%v: %s: size %d, not one of %v", h.what, s.What, len(got), sizes(want))
	}
	for at := 0; at < len(got); at += 512 {
		unit := got[at:min(at+512, len(got))]
		if !unitPossible(unit, at, len(got), want) {
			t.Fatalf("%v: %s: size %d: unit %d is neither old nor new: % x…", h.what, s.What, len(got), at/512, unit[:min(32, len(unit))])
		}
	}
	must(t, f.Truncate(int64(len(got)+1500)))
	if grown := content(t, f); !bytes.Equal(grown, resized(got, len(got)+1500)) {
		t.Fatalf("%v: %s: size %d: bytes past the end came back", h.what, s.What, len(got))
	}
}

// unitPossible reports whether a unit at offset at, in a file of the given size, is from one of
// the versions, with zeros past the version's end. Where the size is from before the version, a
// shrink was lost, and the unit may have the bytes from before.
func unitPossible(unit []byte, at, size int, versions [][]byte) bool {
	for i, v := range versions {
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

func sizes(versions [][]byte) (n []int) {
	for _, v := range versions {
		n = append(n, len(v))
	}
	return n
}

// everyCrash checks all states of changes on a file of start bytes, from the opening on.
func everyCrash(t *testing.T, x *fixture, start []byte, tries int, changes ...change) (states int) {
	t.Helper()
	d, f := x.newDisk(t, start)
	return crashes(t, x, d, f, start, tries, changes...)
}

func crashes(t *testing.T, x *fixture, d *faultfile.Disk, f *cryptfile.File, start []byte, tries int, changes ...change) (states int) {
	t.Helper()
	h := run(t, d, f, start, changes)
	if got := content(t, f); !bytes.Equal(got, h.versions[len(changes)]) {
		t.Fatalf("%v: the file is wrong with no crash at all", h.what)
	}
	each := func(s faultfile.State) {
		states++
		h.check(t, x, s)
	}
	d.Kills(each)
	d.PowerLosses(tries, each)
	return states
}

func TestCrashInResize(t *testing.T) {
	t.Parallel()
	x := newFixture(t)
	states := 0
	for _, old := range edges {
		for _, size := range edges {
			start := pattern(old, 0x11)
			states += everyCrash(t, x, start, 4, truncating(size))
			if size < old { // the tail is no longer clean at the next growth
				states += everyCrash(t, x, start, 4, truncating(size), truncating(old+3))
			}
		}
	}
	tally.Add(t, "crash states", states)
	t.Logf("%d states", states)
}

func TestCrashInWrite(t *testing.T) {
	t.Parallel()
	x := newFixture(t)
	states := 0
	for _, old := range []int{0, 1, 511, 512, 513, 1000, 1024, 1500, 5001} {
		for _, off := range []int{0, 1, 500, 512, 1000, 1024, old} {
			for _, n := range []int{1, 12, 16, 512, 513, 1024, 3000} {
				d := cryptfile.Durability((off + n) % 3)
				states += everyCrash(t, x, pattern(old, 0x11), 2, writing(off, n, 0x22, d))
			}
		}
	}
	tally.Add(t, "crash states", states)
	t.Logf("%d states", states)
}

func TestCrashInHoles(t *testing.T) {
	t.Parallel()
	x := newFixture(t)
	states := 0
	for _, old := range []int{512, 1000, 1024, 5001} {
		for _, off := range []int{0, 1, 512, 1000, 4600} {
			for _, n := range []int{1, 511, 512, 1024, 4000} {
				for _, zero := range []bool{true, false} {
					states += everyCrash(t, x, pattern(old, 0x11), 4, blanking(off, n, zero))
				}
			}
		}
	}
	tally.Add(t, "crash states", states)
	t.Logf("%d states", states)
}

// The file is opened with foreign bytes in padding and spill.
func TestCrashWithDirtyTail(t *testing.T) {
	t.Parallel()
	x := newFixture(t)
	states := 0
	for _, old := range []int{1, 511, 513, 1000, 1535} {
		for _, c := range []change{
			truncating(old + 1), truncating(old + 511), truncating(old + 2000), truncating(old - 1),
			writing(old, 7, 0x22, cryptfile.Volatile), writing(old+600, 1000, 0x22, cryptfile.Data),
			writing(0, old+1, 0x22, cryptfile.Volatile), blanking(old/2, old+700, true),
		} {
			start := pattern(old, 0x11)
			d, f := x.newDisk(t, start)
			dirtyTail(t, x, d, f)
			d.Record()
			f = x.open(t, d.Open("f"))
			states += crashes(t, x, d, f, start, 12, c)
		}
	}
	tally.Add(t, "crash states", states)
	t.Logf("%d states", states)
}

// TestCrashAfterRefusedSync: the sync of a cleaned tail is refused, and the clean bytes are in
// the page cache alone. The caller tries again with success.
func TestCrashAfterRefusedSync(t *testing.T) {
	t.Parallel()
	x := newFixture(t)
	states := 0
	for _, old := range []int{1, 511, 513, 1000, 1535} {
		for _, c := range []change{truncating(old + 511), truncating(old + 2000), writing(old+600, 1000, 0x22, cryptfile.Data)} {
			start := pattern(old, 0x11)
			d, f := x.newDisk(t, start)
			dirtyTail(t, x, d, f)
			d.Record()
			f = x.open(t, d.Open("f"))
			d.Fault = func(s faultfile.Step) (int64, error) {
				if s.Op == faultfile.Sync {
					return 0, unix.EIO
				}
				return 0, nil
			}
			if err := f.Truncate(int64(old) + 1); !errors.Is(err, unix.EIO) {
				t.Fatalf("%d bytes: Truncate: %v, want EIO", old, err)
			}
			d.Fault = nil
			states += crashes(t, x, d, f, start, 4, c)
		}
	}
	tally.Add(t, "crash states", states)
	t.Logf("%d states", states)
}

// Random sequences, with no sync between or one: a tail known to be clean must be clean.
func TestCrashInSequences(t *testing.T) {
	t.Parallel()
	x := newFixture(t)
	states, sequences := 0, 300
	if testing.Short() {
		sequences = 50
	}
	for seed := range sequences {
		rng := rand.New(rand.NewPCG(uint64(seed), 1))
		size := func() int { return max(0, edges[rng.IntN(len(edges))]+rng.IntN(3)-1) }
		changes := make([]change, 5)
		for i := range changes {
			switch rng.IntN(6) {
			case 0, 1:
				changes[i] = truncating(size())
			case 2, 3:
				d := cryptfile.Durability(rng.IntN(3))
				changes[i] = writing(size(), 1+rng.IntN(1500), byte(0x20+i), d)
			case 4:
				changes[i] = blanking(size(), 1+rng.IntN(1500), rng.IntN(2) == 0)
			case 5:
				changes[i] = syncing()
			}
		}
		states += everyCrash(t, x, pattern(size(), 0x11), 3, changes...)
	}
	tally.Add(t, "crash states", states)
	t.Logf("%d states", states)
}

// dirtyTail puts nonzero bytes into padding and spill of the file "f".
func dirtyTail(t *testing.T, x *fixture, d *faultfile.Disk, f *cryptfile.File) {
	t.Helper()
	size := f.Size()
	if size%512 == 0 {
		t.Fatalf("a file of %d bytes has no tail", size)
	}
	must(t, f.Truncate((size+511)/512*512))
	write(t, f, pattern(int((512-size%512)%512), 0x77), size)
	b := d.Open("f")
	spill := pattern(int(size%512), 0x66)
	if _, err := b.WriteAt(spill, 1<<20+(size+511)/512*512, cryptfile.Volatile); err != nil {
		t.Fatal(err)
	}
	must(t, f.Close())
	if reopened := x.open(t, b); reopened.Size() != size {
		t.Fatalf("size %d with a dirty tail, want %d", reopened.Size(), size)
	}
}
