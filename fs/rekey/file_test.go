package rekey

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"vmcryptfs/fs/cryptfile"
	"vmcryptfs/fs/cryptfile/faultfile"
	"vmcryptfs/integration/tally"
	"vmcryptfs/keys"
	"vmcryptfs/layout"
)

// crashSite is a file under old on a disk in memory, and a plan to put it under fresh.
type crashSite struct {
	t          *testing.T
	disk       *faultfile.Disk
	cache      *keys.Cache
	old, fresh *keys.KEK
	plan       goal
	wrap       []byte // the old one
}

func newCrashSite(t *testing.T) *crashSite {
	corp := newKMS("corp", "k1", "k2")
	s := &crashSite{t: t, disk: faultfile.New()}
	s.cache = keys.NewCache(slog.New(slog.DiscardHandler), corp)
	t.Cleanup(func() { s.cache.Close() })
	for id, k := range map[string]**keys.KEK{"k1": &s.old, "k2": &s.fresh} {
		var err error
		*k, err = keys.NewKEK("corp", id, material("corp"+id))
		must(t, err)
		t.Cleanup((*k).Wipe)
	}
	s.plan.target = s.fresh
	dek, err := keys.NewDEK()
	must(t, err)
	defer dek.Wipe()
	h := newHeader(t, dek, s.old)
	s.wrap = bytes.Clone(h.Lockers[0].Wrapped[:])
	f := s.disk.Create()
	must(t, s.disk.Link(f, "f"))
	must(t, cryptfile.Format(f, h))
	return s
}

func (s *crashSite) rekey(d *faultfile.Disk) (outcome, error) {
	return s.plan.update(s.t.Context(), s.cache, d.Open("f"))
}

// wantOpen checks that the file opens under the old key or the new.
func (s *crashSite) wantOpen(d *faultfile.Disk, what string) {
	s.t.Helper()
	slots, err := cryptfile.ReadHeader(d.Open("f"))
	if err != nil {
		s.t.Errorf("%s: %v", what, err)
		return
	}
	dek, err := unwrap(slots.Header, s.old, s.fresh)
	if err != nil {
		s.t.Errorf("%s: %v", what, err)
	}
	dek.Wipe()
}

// wantDone checks that the file is under the new key alone, in both slots.
func (s *crashSite) wantDone(d *faultfile.Disk, what string) {
	s.t.Helper()
	f := d.Open("f")
	slots, err := cryptfile.ReadHeader(f)
	if err != nil || slots.Differ {
		s.t.Errorf("%s: slots differ: %v, %v", what, slots.Differ, err)
		return
	}
	dek, err := unwrap(slots.Header, s.fresh)
	if err != nil {
		s.t.Errorf("%s: %v", what, err)
	}
	dek.Wipe()
	raw := make([]byte, layout.DataOffset)
	if _, err := f.ReadAt(raw, 0); err != nil || bytes.Contains(raw, s.wrap) {
		s.t.Errorf("%s: the old wrap is still there (%v)", what, err)
	}
}

// Cut off at any point, by a kill or power loss, each file opens, and another run ends
// the work.
func TestCrashes(t *testing.T) {
	t.Parallel()
	s := newCrashSite(t)
	s.disk.Record()
	if done, err := s.rekey(s.disk); done != rekeyed || err != nil {
		t.Fatalf("outcome %d, %v", done, err)
	}
	s.wantDone(s.disk, "at the end")
	states := 0
	each := func(st faultfile.State) {
		states++
		s.wantOpen(st.Disk, st.What)
		if done, err := s.rekey(st.Disk); err != nil || done != rekeyed && done != already {
			t.Errorf("%s: again: outcome %d, %v", st.What, done, err)
		}
		s.wantDone(st.Disk, st.What)
		if done, err := s.rekey(st.Disk); err != nil || done != already {
			t.Errorf("%s: third time: outcome %d, %v", st.What, done, err)
		}
	}
	s.disk.Kills(each)
	s.disk.PowerLosses(20, each)
	if states < 100 {
		t.Errorf("%d states only", states)
	}
	tally.Add(t, "crash states", states)
}

// Every write and sync fails once, a write after any sector.
func TestBackingErrors(t *testing.T) {
	t.Parallel()
	faults := 0
	defer func() { tally.Add(t, "faults", faults) }()
	for torn := int64(0); torn < layout.SlotSize; torn += layout.UnitSize {
		failed := true
		for n := 0; failed; n++ {
			s := newCrashSite(t)
			failed = false
			count := 0
			s.disk.Fault = func(st faultfile.Step) (int64, error) {
				if st.Op == faultfile.Read {
					return 0, nil
				}
				if count++; count-1 != n {
					return 0, nil
				}
				failed = true
				faults++
				return torn, unix.EIO
			}
			_, err := s.rekey(s.disk)
			if failed != errors.Is(err, unix.EIO) {
				t.Errorf("step %d failed: %v, error %v", n, failed, err)
			}
			s.wantOpen(s.disk, "after the error")
			s.disk.Fault = nil
			_, err = s.rekey(s.disk)
			must(t, err)
			s.wantDone(s.disk, "after another run")
		}
	}
}

// A header whose update to the target was cut off between the slots counts as done only
// when the old one is gone too.
func TestSlotsDiffer(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.file("a.img", s.kek(s.corp, "k1"))
	old := s.wraps("a.img")
	b := s.backingFile("a.img")
	stale := make([]byte, layout.SlotSize)
	_, err := b.ReadAt(stale, layout.SlotBOffset)
	must(t, err)
	s.run(Request{Paths: []string{"."}, To: "k2"})
	_, err = b.WriteAt(stale, layout.SlotBOffset, cryptfile.Data)
	must(t, err)
	sum := s.run(Request{Paths: []string{"."}})
	if !sum.Complete || sum.Rekeyed != 1 || sum.Already != 0 {
		t.Errorf("%+v", sum)
	}
	s.wantGone(old...)
	s.opens("a.img", s.kek(s.corp, "k2"))
}

// The last generation refuses; a file of a newer version is left alone.
func TestHeadersLeftAlone(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.file("last.img", s.kek(s.corp, "k1"))
	s.file("newer.img", s.kek(s.corp, "k1"))
	s.rewrite("last.img", func(h *layout.Header) { h.Generation = 1<<64 - 1 })
	newer := s.backingFile("newer.img")
	s.setVersion(newer, 2)
	sum := s.run(Request{Paths: []string{"."}, To: "k2"})
	want := map[string]error{"last.img": cryptfile.ErrGeneration, "newer.img": layout.ErrUnsupported}
	for _, f := range sum.Failures {
		if !errors.Is(f.Err, want[f.Path]) {
			t.Errorf("%s: %v, want %v", f.Path, f.Err, want[f.Path])
		}
	}
	if sum.Failed != 2 || sum.Rekeyed != 0 {
		t.Errorf("%+v", sum)
	}
	if got := s.lockers("last.img"); !slices.Equal(got, []string{"corp/k1"}) {
		t.Errorf("lockers %v", got)
	}
}

// rewrite changes a header under k1 and seals it.
func (s *site) rewrite(rel string, change func(*layout.Header)) {
	s.t.Helper()
	h := *s.slots(rel).Header
	dek, err := unwrap(&h, s.kek(s.corp, "k1"))
	must(s.t, err)
	defer dek.Wipe()
	change(&h)
	dek.Seal(&h)
	s.writeSlots(s.backingFile(rel), h.AppendSlot(nil))
}

func (s *site) writeSlots(b *cryptfile.OSFile, slot []byte) {
	s.t.Helper()
	for _, at := range []int64{layout.SlotAOffset, layout.SlotBOffset} {
		_, err := b.WriteAt(slot, at, cryptfile.Volatile)
		must(s.t, err)
	}
}

// Two runs over one tree, and readers of the files at the same time, do not disturb each other.
func TestSideBySide(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	rels, wraps := s.tree()
	k1, k2 := s.kek(s.corp, "k1"), s.kek(s.corp, "k2")
	var all sync.WaitGroup
	for _, rel := range rels {
		b := s.backingFile(rel)
		all.Go(func() {
			for range 100 {
				s.openLocked(b, rel, k1, k2)
			}
		})
	}
	for range 3 {
		all.Go(func() {
			sum, err := Run(t.Context(), s.config(), Request{Paths: []string{"vm1", "vm2", "c.img"}, To: "k2"}, func(Event) error { return nil })
			if err != nil || !sum.Complete {
				t.Errorf("%+v, %v", sum, err)
			}
		})
	}
	all.Wait()
	for _, rel := range rels {
		s.opens(rel, k2)
	}
	s.wantGone(wraps...)
}

// openLocked opens as a mount does, and heals.
func (s *site) openLocked(b *cryptfile.OSFile, rel string, keks ...*keys.KEK) {
	unlock, err := b.LockHeader(s.t.Context())
	if err != nil {
		s.t.Error(err)
		return
	}
	defer unlock()
	slots, err := cryptfile.ReadHeader(b)
	if err != nil {
		s.t.Errorf("%s: %v", rel, err)
		return
	}
	dek, err := unwrap(slots.Header, keks...)
	if err == nil {
		err = cryptfile.Heal(b, slots)
		dek.Wipe()
	}
	if err != nil {
		s.t.Errorf("%s: %v", rel, err)
	}
}

// setVersion makes both slots well-formed ones of another version.
func (s *site) setVersion(b *cryptfile.OSFile, version byte) {
	s.t.Helper()
	slot := make([]byte, layout.SlotSize)
	_, err := b.ReadAt(slot, 0)
	must(s.t, err)
	slot[8] = version
	sum := sha256.Sum256(slot[:layout.SlotSize-sha256.Size])
	copy(slot[layout.SlotSize-sha256.Size:], sum[:])
	s.writeSlots(b, slot)
}
