package cryptfile_test

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"golang.org/x/sys/unix"

	"vmcryptfs/fs/cryptfile"
	"vmcryptfs/fs/cryptfile/faultfile"
	"vmcryptfs/integration/tally"
)

// failing makes steps at…at+times-1 fail, writes after torn bytes, and counts the steps.
func failing(d *faultfile.Disk, at, times int, torn int64, err error) (steps *int) {
	steps = new(int)
	d.Fault = func(s faultfile.Step) (int64, error) {
		i := *steps
		*steps++
		if i < at || i >= at+times {
			return 0, nil
		}
		return min(torn, s.Len), err
	}
	return steps
}

// faultChanges are operations to try on a disk that refuses steps.
func faultChanges(old int) []func(*cryptfile.File) error {
	write := func(off, n int, d cryptfile.Durability) func(*cryptfile.File) error {
		return func(f *cryptfile.File) error {
			_, err := f.WriteAt(pattern(n, 0x22), int64(off), d)
			return err
		}
	}
	return []func(*cryptfile.File) error{
		write(0, 2048, cryptfile.Volatile), write(100, 1500, cryptfile.Data), write(old, 1024, cryptfile.Volatile),
		write(old+700, 33, cryptfile.Full), write(old-1, 600, cryptfile.Volatile), write(max(0, old-512), 1024, cryptfile.Volatile),
		func(f *cryptfile.File) error { return f.Truncate(int64(old) + 1000) },
		func(f *cryptfile.File) error { return f.Truncate(int64(old) - 600) },
		func(f *cryptfile.File) error { return f.Punch(100, 2000) },
		func(f *cryptfile.File) error { return f.Zero(100, int64(old), false) },
		func(f *cryptfile.File) error { return f.Allocate(100, int64(old), false) },
		func(f *cryptfile.File) error { return f.Sync(cryptfile.Data) },
	}
}

// after returns a file's content after change without a failure.
func (x *fixture) after(t *testing.T, old []byte, change func(*cryptfile.File) error) []byte {
	t.Helper()
	_, f := x.newDisk(t, old)
	must(t, change(f))
	defer f.Close()
	return content(t, f)
}

// The n-th call fails, and perhaps the next one, torn at any 16 bytes. The error is the disk's,
// each block is old or new, the size is old or new or between, memory and disk agree about the
// size, and later operations are right.
func TestBackingFaults(t *testing.T) {
	t.Parallel()
	x := newFixture(t)
	faults := 0
	for _, sparse := range []bool{false, true} {
		for _, size := range []int{1024, 1500, 4096} {
			old := pattern(size, 0x11)
			if sparse {
				old = make([]byte, size)
				old[size-1] = 1
			}
			for i, change := range faultChanges(size) {
				want := x.after(t, old, change)
				for _, c := range []struct{ torn, times int64 }{
					{0, 1}, {16, 1}, {496, 1}, {512, 1}, {1040, 1}, {16, 2}, {528, 2},
				} {
					for at := 0; ; at++ {
						what := fmt.Sprintf("change %d of %d bytes, sparse %t, call %d fails after %d", i, size, sparse, at, c)
						d, f := x.newDisk(t, old)
						if sparse {
							d, f = x.sparseDisk(t, old)
						}
						steps := failing(d, at, int(c.times), c.torn, unix.ENOSPC)
						err := change(f)
						d.Fault = nil
						if *steps <= at {
							must(t, f.Close())
							break
						}
						faults++
						checkFault(t, x, d, f, what, err, old, want)
					}
				}
			}
		}
	}
	tally.Add(t, "faults", faults)
	t.Logf("%d faults", faults)
}

// sparseDisk is newDisk for a file of holes and one last byte.
func (x *fixture) sparseDisk(t *testing.T, content []byte) (*faultfile.Disk, *cryptfile.File) {
	t.Helper()
	d, f := x.newDisk(t, nil)
	last := len(content) - 1
	write(t, f, content[last:], int64(last))
	d.Record()
	return d, f
}

func checkFault(t *testing.T, x *fixture, d *faultfile.Disk, f *cryptfile.File, what string, err error, old, want []byte) {
	t.Helper()
	if err != nil && !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("%s: %v, want ENOSPC", what, err)
	}
	must(t, f.Sync(cryptfile.Data)) // takes back an append left in place by a second fault
	got := content(t, f)
	if err == nil && !bytes.Equal(got, want) {
		t.Fatalf("%s: no error, and not the new bytes", what)
	}
	if !sizePossible(len(got), [][]byte{old, want}) {
		t.Fatalf("%s: size %d, from %d to %d", what, len(got), len(old), len(want))
	}
	before, after := resized(old, len(got)), resized(want, len(got))
	for at, c := range got {
		if c != before[at] && c != after[at] {
			t.Fatalf("%s: byte %d is neither old nor new", what, at)
		}
	}
	reopened := x.open(t, d.Open("f"))
	if again := content(t, reopened); !bytes.Equal(again, got) || reopened.Warning() != nil {
		t.Fatalf("%s: size %d in memory, %d on disk, or other bytes; %v", what, len(got), len(again), reopened.Warning())
	}
	must(t, reopened.Close())
	end := len(got) + 77
	write(t, f, pattern(700, 0x33), int64(end))
	got = append(resized(got, end), pattern(700, 0x33)...)
	if !bytes.Equal(content(t, f), got) {
		t.Fatalf("%s: the write after it went wrong", what)
	}
	must(t, f.Close())
}

// The disk goes on refusing, so a failed append cannot be taken back at once: Sync reports that.
// Once the disk accepts steps again, the old bytes are there.
func TestAppendThatCannotBeTakenBack(t *testing.T) {
	t.Parallel()
	x := newFixture(t)
	for name, settle := range map[string]func(*cryptfile.File) error{
		"sync":     func(f *cryptfile.File) error { return f.Sync(cryptfile.Data) },
		"close":    func(f *cryptfile.File) error { return f.Close() },
		"truncate": func(f *cryptfile.File) error { return f.Truncate(512) },
	} {
		old := pattern(512, 1)
		d, f := x.newDisk(t, old)
		failing(d, 0, 1000, 16, unix.EIO)
		if _, err := f.WriteAt(pattern(512, 2), 512, cryptfile.Volatile); !errors.Is(err, unix.EIO) {
			t.Fatalf("WriteAt: %v, want EIO", err)
		}
		if err := f.Sync(cryptfile.Data); !errors.Is(err, unix.EIO) {
			t.Errorf("Sync with a length not settled: %v, want EIO", err)
		}
		d.Fault = nil
		must(t, settle(f))
		reopened := x.open(t, d.Open("f"))
		if got := content(t, reopened); name != "truncate" && !bytes.Equal(got, old) {
			t.Errorf("after %s: %d bytes, or other ones", name, len(got))
		}
	}
}

// TestAppendRefusedFromAnyStep lets every change fail from one on, in appends that set the new
// length before the data: a refused append leaves no greater size.
func TestAppendRefusedFromAnyStep(t *testing.T) {
	t.Parallel()
	x := newFixture(t)
	for _, lengths := range [][2]int{{700, 900}, {512, 1}, {1, 5000}} {
		refused := 0
		for step := 0; ; step++ {
			old := pattern(lengths[0], 1)
			d, f := x.newDisk(t, old)
			failing(d, step, 1000, 0, unix.EIO)
			n, err := f.WriteAt(pattern(lengths[1], 2), int64(len(old)), cryptfile.Volatile)
			d.Fault = nil
			if err == nil {
				break
			}
			refused++
			if got, want := f.Size(), int64(len(old)+n); got != want {
				t.Errorf("%v, from step %d: size %d after %d bytes, want %d", lengths, step, got, n, want)
			}
			d.Fault = func(faultfile.Step) (int64, error) {
				if got := f.Size(); got != int64(len(old)+n) {
					t.Errorf("%v, from step %d: size %d while the length is taken back", lengths, step, got)
				}
				return 0, nil
			}
			must(t, f.Sync(cryptfile.Data))
			d.Fault = nil
			if got := content(t, x.open(t, d.Open("f"))); !bytes.HasPrefix(got, old) || len(got) != len(old)+n {
				t.Errorf("%v, from step %d: %d bytes in BACKING, or other ones", lengths, step, len(got))
			}
		}
		if refused < 2 {
			t.Errorf("%v: %d steps, want the length and the data at least", lengths, refused)
		}
	}
}

// TestNoSizeBetween: during a cut in two steps, a reader of the size gets the old size or the new
// one.
func TestNoSizeBetween(t *testing.T) {
	t.Parallel()
	x := newFixture(t)
	d, f := x.newDisk(t, pattern(5001, 1))
	cuts := 0
	d.Fault = func(s faultfile.Step) (int64, error) {
		if s.Op == faultfile.Truncate {
			cuts++
		}
		if got := f.Size(); got != 5001 {
			t.Errorf("size %d before step %v", got, s)
		}
		return 0, nil
	}
	must(t, f.Truncate(700))
	d.Fault = nil
	if got := f.Size(); got != 700 || cuts != 2 {
		t.Errorf("size %d after %d steps, want 700 after 2", got, cuts)
	}
}

func TestReadFault(t *testing.T) {
	t.Parallel()
	x := newFixture(t)
	d, f := x.newDisk(t, pattern(5001, 1))
	failing(d, 0, 1, 0, unix.EIO)
	if n, err := f.ReadAt(make([]byte, 4096), 0); n != 0 || !errors.Is(err, unix.EIO) {
		t.Errorf("ReadAt = %d, %v, want EIO", n, err)
	}
	if got := content(t, f); !bytes.Equal(got, pattern(5001, 1)) {
		t.Error("the next read is wrong")
	}
}
