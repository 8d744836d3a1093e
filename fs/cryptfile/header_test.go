package cryptfile_test

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"testing"

	"golang.org/x/sys/unix"

	"vmcryptfs/fs/cryptfile"
	"vmcryptfs/fs/cryptfile/faultfile"
	"vmcryptfs/integration/tally"
	"vmcryptfs/layout"
)

// formatted is an empty encrypted file "f", synced.
func (x *fixture) formatted(t *testing.T) (*faultfile.Disk, *faultfile.File) {
	t.Helper()
	d := faultfile.New()
	b := d.Create()
	must(t, cryptfile.Format(b, x.header))
	must(t, d.Link(b, "f"))
	d.Record()
	return d, b
}

func slotsOf(t *testing.T, b cryptfile.Backing) layout.Slots {
	t.Helper()
	s, err := cryptfile.ReadHeader(b)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestFormat(t *testing.T) {
	t.Parallel()
	x := newFixture(t)
	_, b := x.formatted(t)
	s := slotsOf(t, b)
	if s.Differ || s.Header.FileID != x.header.FileID || s.Header.MAC != x.header.MAC {
		t.Errorf("ReadHeader after Format = %+v", s)
	}
	if encrypted, err := cryptfile.IsEncrypted(b); !encrypted || err != nil {
		t.Errorf("IsEncrypted = %t, %v", encrypted, err)
	}
	if has, err := cryptfile.HasSlotB(b); !has || err != nil {
		t.Errorf("HasSlotB = %t, %v", has, err)
	}
	if size, _ := b.Size(); size != layout.DataOffset {
		t.Errorf("backing size %d", size)
	}
}

func TestIsEncrypted(t *testing.T) {
	t.Parallel()
	magic := []byte(layout.Magic)
	for _, c := range []struct {
		name  string
		begin []byte
		size  int64
		want  bool
		err   error
	}{
		{"empty", nil, 0, false, nil},
		{"shorter than the magic", magic[:7], 7, false, nil},
		{"magic alone", magic, 8, false, layout.ErrDamaged},
		{"one byte short", magic, layout.DataOffset - 1, false, layout.ErrDamaged},
		{"just long enough", magic, layout.DataOffset, true, nil},
		{"long, no magic", magic[:7], layout.DataOffset, false, nil},
		{"long, zeros", nil, layout.DataOffset + 512, false, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := faultfile.New().Create()
			if _, err := b.WriteAt(c.begin, 0, cryptfile.Volatile); err != nil {
				t.Fatal(err)
			}
			must(t, b.Truncate(c.size))
			if got, err := cryptfile.IsEncrypted(b); got != c.want || !errors.Is(err, c.err) {
				t.Errorf("IsEncrypted = %t, %v, want %t, %v", got, err, c.want, c.err)
			}
			if has, err := cryptfile.HasSlotB(b); has || err != nil {
				t.Errorf("HasSlotB = %t, %v, want false", has, err)
			}
		})
	}
}

// A file is damaged when its header is cut anywhere, and whole when only a slot is cut.
func TestReadHeaderOfDamage(t *testing.T) {
	t.Parallel()
	x := newFixture(t)
	spoil := func(off int64) func(cryptfile.Backing) error {
		return func(b cryptfile.Backing) error {
			_, err := b.WriteAt([]byte{0xff}, off, cryptfile.Volatile)
			return err
		}
	}
	cut := func(size int64) func(cryptfile.Backing) error {
		return func(b cryptfile.Backing) error { return b.Truncate(size) }
	}
	for _, c := range []struct {
		name string
		do   []func(cryptfile.Backing) error
		err  error
	}{
		{"cut to nothing", []func(cryptfile.Backing) error{cut(0)}, layout.ErrDamaged},
		{"cut inside slot A", []func(cryptfile.Backing) error{cut(100)}, layout.ErrDamaged},
		{"cut inside slot B", []func(cryptfile.Backing) error{cut(layout.SlotBOffset + 100)}, layout.ErrDamaged},
		{"cut before the data", []func(cryptfile.Backing) error{cut(layout.DataOffset - 1)}, layout.ErrDamaged},
		{"magic wiped", []func(cryptfile.Backing) error{spoil(0)}, nil},
		{"slot A torn", []func(cryptfile.Backing) error{spoil(3000)}, nil},
		{"slot B torn", []func(cryptfile.Backing) error{spoil(layout.SlotBOffset + 3000)}, nil},
		{"both torn", []func(cryptfile.Backing) error{spoil(3000), spoil(layout.SlotBOffset + 100)}, layout.ErrDamaged},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, b := x.formatted(t)
			for _, do := range c.do {
				must(t, do(b))
			}
			s, err := cryptfile.ReadHeader(b)
			if !errors.Is(err, c.err) {
				t.Fatalf("ReadHeader: %v, want %v", err, c.err)
			}
			if err == nil && (!s.Differ || s.Header.FileID != x.header.FileID) {
				t.Errorf("ReadHeader = %+v", s)
			}
		})
	}
}

// rekeyed returns h with a second locker under the same key, as written by a rekey.
func (x *fixture) rekeyed(t *testing.T, h *layout.Header) *layout.Header {
	t.Helper()
	next := *h
	dek := x.dek(t)
	defer dek.Wipe()
	must(t, x.kek.Wrap(&next, 1, dek))
	return &next
}

func (x *fixture) update(t *testing.T, b cryptfile.Backing) error {
	t.Helper()
	s := slotsOf(t, b)
	dek := x.dek(t)
	defer dek.Wipe()
	return cryptfile.UpdateHeader(b, s, x.rekeyed(t, s.Header), dek)
}

func TestUpdateHeader(t *testing.T) {
	t.Parallel()
	x := newFixture(t)
	_, b := x.formatted(t)
	for generation := uint64(2); generation < 5; generation++ {
		must(t, x.update(t, b))
		s := slotsOf(t, b)
		if s.Differ || s.Header.Generation != generation {
			t.Fatalf("slots differ %t, generation %d, want %d", s.Differ, s.Header.Generation, generation)
		}
		for locker := range 2 {
			dek, err := x.kek.Unwrap(s.Header, locker)
			if err != nil {
				t.Fatalf("generation %d: %v", generation, err)
			}
			dek.Wipe()
		}
	}
}

func TestUpdateHeaderRefuses(t *testing.T) {
	t.Parallel()
	x := newFixture(t)
	dek := x.dek(t)
	defer dek.Wipe()
	d, b := x.formatted(t)

	last := *x.header
	last.Generation = math.MaxUint64
	s := layout.Slots{Header: &last, NextWrite: layout.SlotB}
	if err := cryptfile.UpdateHeader(b, s, x.rekeyed(t, &last), dek); !errors.Is(err, cryptfile.ErrGeneration) {
		t.Errorf("after the last generation: %v, want ErrGeneration", err)
	}
	other := *x.header
	other.FileID[0]++
	if err := cryptfile.UpdateHeader(b, slotsOf(t, b), &other, dek); err == nil {
		t.Error("the header of another file was written")
	}
	if d.Steps() != 0 {
		t.Errorf("a refused update did %d steps", d.Steps())
	}
}

// checkHeader finds in a state a header that opens with one of the generations.
func (x *fixture) checkHeader(t *testing.T, s faultfile.State, from, to uint64) {
	t.Helper()
	slots, err := cryptfile.ReadHeader(s.Disk.Open("f"))
	if err != nil {
		t.Fatalf("%s: %v", s.What, err)
	}
	if g := slots.Header.Generation; g < from || g > to {
		t.Fatalf("%s: generation %d, not %d to %d", s.What, g, from, to)
	}
	dek, err := x.kek.Unwrap(slots.Header, 0)
	if err != nil {
		t.Fatalf("%s: %v", s.What, err)
	}
	dek.Wipe()
}

func TestCrashInHeaderUpdate(t *testing.T) {
	t.Parallel()
	x := newFixture(t)
	states := 0
	d, b := x.formatted(t)
	for range 3 {
		d.Record()
		g := slotsOf(t, b).Header.Generation
		must(t, x.update(t, b))
		each := func(s faultfile.State) {
			states++
			x.checkHeader(t, s, g, g+1)
			if s.Steps == d.Steps() && slotsOf(t, s.Disk.Open("f")).Differ {
				t.Fatalf("%s: slots differ after an update", s.What)
			}
		}
		d.Kills(each)
		d.PowerLosses(60, each)
	}
	tally.Add(t, "crash states", states)
	t.Logf("%d states", states)
}

// A kill cuts off an update after any step, torn anywhere. The next process heals or updates the
// header found in the page cache, and then the power goes.
func TestCrashAfterKilledHeaderUpdate(t *testing.T) {
	t.Parallel()
	x := newFixture(t)
	killed := errors.New("killed")
	states := 0
	for _, next := range []struct {
		name string
		do   func(*testing.T, cryptfile.Backing) error
	}{
		{"update", func(t *testing.T, b cryptfile.Backing) error { return x.update(t, b) }},
		{"heal", func(t *testing.T, b cryptfile.Backing) error { return cryptfile.Heal(b, slotsOf(t, b)) }},
		{"heal and update", func(t *testing.T, b cryptfile.Backing) error {
			if err := cryptfile.Heal(b, slotsOf(t, b)); err != nil {
				return err
			}
			return x.update(t, b)
		}},
	} {
		for at := range 5 {
			for _, torn := range []int64{0, 512, 3584} {
				d, b := x.formatted(t)
				step := 0
				d.Fault = func(s faultfile.Step) (int64, error) {
					if s.Op == faultfile.Read {
						return 0, nil
					}
					if step++; step > at {
						return torn, killed
					}
					return 0, nil
				}
				if err := x.update(t, b); !errors.Is(err, killed) {
					t.Fatalf("update killed at step %d: %v", at, err)
				}
				d.Fault = nil
				must(t, next.do(t, b))
				if slotsOf(t, b).Differ {
					t.Fatalf("killed at step %d, torn at %d, then %s: slots differ", at, torn, next.name)
				}
				each := func(s faultfile.State) {
					states++
					s.What = fmt.Sprintf("killed at step %d, torn at %d, then %s: %s", at, torn, next.name, s.What)
					x.checkHeader(t, s, 1, 3)
				}
				d.Kills(each)
				d.PowerLosses(20, each)
			}
		}
	}
	tally.Add(t, "crash states", states)
	t.Logf("%d states", states)
}

// The sync of an update is refused: the update stays in the page cache alone. The next update, or
// repair, must not take the cached bytes for stored.
func TestCrashAfterRefusedHeaderSync(t *testing.T) {
	t.Parallel()
	x := newFixture(t)
	states, doubts := 0, 0
	for name, next := range map[string]func(cryptfile.Backing) error{
		"update": func(b cryptfile.Backing) error { return x.update(t, b) },
		"heal":   func(b cryptfile.Backing) error { return cryptfile.Heal(b, slotsOf(t, b)) },
	} {
		for refused := 1; refused <= 3; refused++ {
			d, b := x.formatted(t)
			syncs := 0
			d.Fault = func(s faultfile.Step) (int64, error) {
				if s.Op == faultfile.Sync {
					if syncs++; syncs == refused {
						return 0, unix.EIO
					}
				}
				return 0, nil
			}
			if err := x.update(t, b); !errors.Is(err, unix.EIO) {
				t.Fatalf("update with sync %d refused: %v", refused, err)
			}
			d.Fault = nil
			err := next(b)
			if err != nil {
				doubts++
				err = next(b)
			}
			if err != nil || slotsOf(t, b).Differ {
				t.Errorf("sync %d refused, then %s: %v; slots differ: %t", refused, name, err, slotsOf(t, b).Differ)
			}
			each := func(s faultfile.State) {
				states++
				s.What = fmt.Sprintf("sync %d refused, then %s: %s", refused, name, s.What)
				x.checkHeader(t, s, 1, 3)
			}
			d.Kills(each)
			d.PowerLosses(60, each)
		}
	}
	if doubts == 0 {
		t.Error("no update found out that the header was lost")
	}
	tally.Add(t, "crash states", states)
	t.Logf("%d states", states)
}

// A name never appears without its header.
func TestCrashInCreate(t *testing.T) {
	t.Parallel()
	x := newFixture(t)
	d := faultfile.New()
	d.Record()
	b := d.Create()
	must(t, cryptfile.Format(b, x.header))
	must(t, d.Link(b, "f"))
	must(t, faultfile.Dir{Disk: d}.Sync())
	states, there := 0, 0
	each := func(s faultfile.State) {
		states++
		b := s.Disk.Open("f")
		if b == nil {
			if s.Steps == d.Steps() {
				t.Fatalf("%s: the name is lost", s.What)
			}
			return
		}
		there++
		x.checkHeader(t, s, 1, 1)
		f := x.open(t, b)
		if slotsOf(t, b).Differ || f.Size() != 0 || f.Warning() != nil {
			t.Fatalf("%s: size %d, %v", s.What, f.Size(), f.Warning())
		}
		must(t, f.Close())
	}
	d.Kills(each)
	d.PowerLosses(100, each)
	if there == 0 || there == states {
		t.Errorf("the name is there in %d of %d states", there, states)
	}
	tally.Add(t, "crash states", states)
	t.Logf("%d states", states)
}

// A refused step leaves a header, and the error is the disk's.
func TestHeaderFaults(t *testing.T) {
	t.Parallel()
	x := newFixture(t)
	refused := errors.New("refused")
	for at := range 5 {
		d, b := x.formatted(t)
		step := 0
		d.Fault = func(s faultfile.Step) (int64, error) {
			if s.Op != faultfile.Read {
				step++
			}
			if step == at+1 && s.Op != faultfile.Read {
				return 0, refused
			}
			return 0, nil
		}
		if err := x.update(t, b); !errors.Is(err, refused) {
			t.Errorf("step %d refused: %v", at, err)
		}
		x.checkHeader(t, faultfile.State{Disk: d, What: "refused"}, 1, 2)
	}
}

// Heal leaves equal slots alone.
func TestHealOfEqualSlots(t *testing.T) {
	t.Parallel()
	x := newFixture(t)
	d, b := x.formatted(t)
	must(t, cryptfile.Heal(b, slotsOf(t, b)))
	if d.Steps() != 0 {
		t.Errorf("%d steps", d.Steps())
	}
	// For a slot of another version, AppendSlot would give other bytes.
	stored := make([]byte, layout.SlotSize)
	if _, err := b.ReadAt(stored, 0); err != nil || !bytes.Equal(stored, x.header.AppendSlot(nil)) {
		t.Error("slot A changed")
	}
}
