package cryptfile_test

import (
	"bytes"
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"vmcryptfs/fs/cryptfile"
	"vmcryptfs/fs/cryptfile/faultfile"
	"vmcryptfs/layout"
)

// abilities are the kinds of disks: one with all modes, tmpfs, one that can only reserve, and one
// with no fallocate but plain growth.
var abilities = map[string]uint32{
	"all":           0,
	"no zero range": unix.FALLOC_FL_ZERO_RANGE,
	"no punch":      unix.FALLOC_FL_ZERO_RANGE | unix.FALLOC_FL_PUNCH_HOLE,
}

func TestPunchAndZero(t *testing.T) {
	t.Parallel()
	x := newFixture(t)
	for name, without := range abilities {
		for _, size := range []int{1, 512, 1000, 1024, 5001, 140000} {
			for _, off := range []int{0, 1, 511, 512, 1000, 1024, 4600, 70001} {
				for _, n := range []int{1, 511, 512, 513, 4096, 5001, 70000} {
					for _, op := range []string{"punch", "zero", "zero, keep size"} {
						if size > 1<<16 != (off > 1<<16 || n > 1<<16) && (off+n)%3 > 0 {
							continue // the long ones are slow, and alike
						}
						d, f := x.newDisk(t, pattern(size, 1))
						d.Without = without
						after := size
						switch op {
						case "punch":
							must(t, f.Punch(int64(off), int64(n)))
						case "zero":
							must(t, f.Zero(int64(off), int64(n), false))
							after = max(size, off+n)
						default:
							must(t, f.Zero(int64(off), int64(n), true))
						}
						want := resized(pattern(size, 1), after)
						clear(want[min(off, after):min(off+n, after)])
						if got := content(t, f); !bytes.Equal(got, want) {
							t.Fatalf("disk with %s: %s of %d bytes at %d of %d: wrong", name, op, n, off, size)
						}
						must(t, f.Close())
					}
				}
			}
		}
	}
}

// Whole punched units are holes of the backing file, the last one too.
func TestPunchGivesSpaceBack(t *testing.T) {
	t.Parallel()
	x := newFixture(t)
	d, f := x.newDisk(t, pattern(5001, 1))
	must(t, f.Punch(700, 5001-700))
	b := d.Open("f")
	if at, err := b.Seek(layout.DataOffset+1024, unix.SEEK_DATA); err == nil {
		// Only the spill, past the last unit, is not of the file.
		t.Errorf("data at %d after a punch from 700 to the end", at-layout.DataOffset)
	}
	steps := d.Steps()
	must(t, f.Punch(100, 0x100))
	must(t, f.Punch(1100, 100)) // in a hole already: nothing to store
	if n := d.Steps() - steps; n != 1 {
		t.Errorf("%d steps for a punch in data and one in a hole, want 1", n)
	}
}

func TestAllocate(t *testing.T) {
	t.Parallel()
	x := newFixture(t)
	for _, size := range []int{0, 100, 512, 5001} {
		for _, keep := range []bool{false, true} {
			d, f := x.newDisk(t, pattern(size, 1))
			must(t, f.Allocate(300, 1000, keep))
			after := size
			if !keep {
				after = max(size, 1300)
			}
			if got := content(t, f); !bytes.Equal(got, resized(pattern(size, 1), after)) {
				t.Errorf("allocate with keep size %t in %d bytes: wrong", keep, size)
			}
			d.Fault = func(s faultfile.Step) (int64, error) {
				if s.Op == faultfile.Fallocate {
					return 0, unix.ENOSPC
				}
				return 0, nil
			}
			if err := f.Allocate(100, 10000, keep); !errors.Is(err, unix.ENOSPC) {
				t.Errorf("allocate on a full disk: %v", err)
			}
			if err := f.Zero(100, 10000, keep); !errors.Is(err, unix.ENOSPC) {
				t.Errorf("zero on a full disk: %v", err)
			}
			if got := content(t, f); !bytes.Equal(got, resized(pattern(size, 1), after)) {
				t.Errorf("a refused allocate or zero changed the file of %d bytes", size)
			}
		}
	}
}

func TestSeek(t *testing.T) {
	t.Parallel()
	x := newFixture(t)
	_, f := x.newDisk(t, nil)
	write(t, f, pattern(700, 1), 1100) // units 2 and 3
	write(t, f, pattern(10, 1), 5*512) // unit 5
	must(t, f.Truncate(8*512+100))     // a hole of units 6 and 7, and a tail that is a hole
	const end, data, hole = 8*512 + 100, unix.SEEK_DATA, unix.SEEK_HOLE
	for _, c := range []struct {
		off    int64
		whence int
		want   int64
		err    error
	}{
		{0, data, 1024, nil},
		{0, hole, 0, nil},
		{1023, hole, 1023, nil},
		{1023, data, 1024, nil},
		{1024, data, 1024, nil},
		{1099, data, 1099, nil}, // a zero of a unit with data is data
		{1099, hole, 2048, nil},
		{2047, hole, 2048, nil},
		{2048, data, 2560, nil},
		{2600, data, 2600, nil},
		{2600, hole, 3072, nil},
		{3072, data, 0, unix.ENXIO},
		{3072, hole, 3072, nil},
		{end - 1, hole, end - 1, nil},
		{end, hole, 0, unix.ENXIO},
		{end, data, 0, unix.ENXIO},
		{-1, data, 0, unix.ENXIO},
		{0, 0, 0, unix.EINVAL},
	} {
		if got, err := f.Seek(c.off, c.whence); got != c.want || !errors.Is(err, c.err) {
			t.Errorf("Seek(%d, %d) = %d, %v, want %d, %v", c.off, c.whence, got, err, c.want, c.err)
		}
	}
}

// The end of the file is a hole, and neither padding nor spill is data.
func TestSeekAtTheEnd(t *testing.T) {
	t.Parallel()
	x := newFixture(t)
	d, f := x.newDisk(t, pattern(1000, 1))
	dirtyTail(t, x, d, f)
	f = x.open(t, d.Open("f"))
	for off := int64(0); off < 1000; off += 37 {
		if at, err := f.Seek(off, unix.SEEK_HOLE); at != 1000 || err != nil {
			t.Errorf("hole from %d at %d, %v, want the end", off, at, err)
		}
		if at, err := f.Seek(off, unix.SEEK_DATA); at != off || err != nil {
			t.Errorf("data from %d at %d, %v", off, at, err)
		}
	}
}

// A file system whose holes begin and end inside units shows no hole where data is.
func TestSeekInSmallHoles(t *testing.T) {
	t.Parallel()
	x := newFixture(t)
	d, f := x.newDisk(t, pattern(5*512, 1))
	must(t, f.Close())
	dek := x.dek(t)
	f, err := cryptfile.Open(smallHoles{d.Open("f")}, dek)
	must(t, err)
	defer f.Close()
	if at, err := f.Seek(0, unix.SEEK_HOLE); at != 3*512 || err != nil {
		t.Errorf("hole at %d, %v, want %d", at, err, 3*512)
	}
	if at, err := f.Seek(3*512, unix.SEEK_DATA); at != 4*512 || err != nil {
		t.Errorf("data at %d, %v, want %d", at, err, 4*512)
	}
}

// smallHoles reports holes at [600, 700) and [1500, 2100) of the data.
type smallHoles struct{ cryptfile.Backing }

func (smallHoles) Seek(off int64, whence int) (int64, error) {
	off -= layout.DataOffset
	boundaries := []int64{600, 700, 1500, 2100, 5 * 512} // hole, data, hole, data, end
	for i, b := range boundaries {
		inHole := i%2 == 1
		if off < b && inHole == (whence == unix.SEEK_HOLE) {
			return off + layout.DataOffset, nil
		}
		if off < b {
			return b + layout.DataOffset, nil
		}
	}
	return 0, unix.ENXIO
}
