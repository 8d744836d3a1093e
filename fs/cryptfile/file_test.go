package cryptfile_test

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"vmcryptfs/fs/cryptfile"
	"vmcryptfs/fs/cryptfile/faultfile"
	"vmcryptfs/layout"
)

// Every size is reached from every other by truncation and by a write, and a reopened
// file is the same.
func TestSizes(t *testing.T) {
	t.Parallel()
	x := newFixture(t)
	for _, old := range append(edges, 1<<20-1, 1<<20, 1<<20+1) {
		for _, size := range edges {
			_, f := x.newDisk(t, pattern(old, 1))
			must(t, f.Truncate(int64(size)))
			want := resized(pattern(old, 1), size)
			if got := content(t, f); !bytes.Equal(got, want) {
				t.Fatalf("%d truncated to %d: wrong", old, size)
			}
			must(t, f.Truncate(int64(old)))
			want = resized(want, old)
			if got := content(t, f); !bytes.Equal(got, want) {
				t.Fatalf("%d truncated to %d and back: wrong", old, size)
			}
		}
	}
}

func TestWrites(t *testing.T) {
	t.Parallel()
	x := newFixture(t)
	for _, old := range edges {
		for _, off := range edges {
			for _, n := range []int{1, 16, 511, 512, 513, 4096, 4097, 70000} {
				d, f := x.newDisk(t, pattern(old, 1))
				write(t, f, pattern(n, 2), int64(off))
				want := resized(pattern(old, 1), max(old, off+n))
				copy(want[off:], pattern(n, 2))
				if got := content(t, f); !bytes.Equal(got, want) {
					t.Fatalf("%d bytes at %d of %d: wrong", n, off, old)
				}
				reopened := x.open(t, d.Open("f"))
				if got := content(t, reopened); !bytes.Equal(got, want) {
					t.Fatalf("%d bytes at %d of %d: wrong after reopening", n, off, old)
				}
				must(t, reopened.Close())
				must(t, f.Close())
			}
		}
	}
}

func TestReads(t *testing.T) {
	t.Parallel()
	x := newFixture(t)
	for _, size := range []int{0, 1, 511, 512, 513, 5001, 150001} {
		plain := pattern(size, 1)
		_, f := x.newDisk(t, plain)
		for _, off := range append(edges, 100000, 150000) {
			for _, n := range []int{0, 1, 16, 511, 512, 513, 4096, 4097, 66000, 140000} {
				p := bytes.Repeat([]byte{0xee}, n)
				got, err := f.ReadAt(p, int64(off))
				want := plain[min(off, size):min(off+n, size)]
				if err != nil || !bytes.Equal(p[:got], want) {
					t.Fatalf("ReadAt(%d bytes, %d) of %d = %d, %v, or wrong", n, off, size, got, err)
				}
				for i, c := range p[got:] {
					if c != 0 && c != 0xee {
						t.Fatalf("ReadAt(%d bytes, %d) of %d left %#x past the end, at %d", n, off, size, c, got+i)
					}
				}
			}
		}
	}
}

// calls counts a file's calls of its disk.
func calls(d *faultfile.Disk) func() string {
	var reads, writes, others int
	d.Fault = func(s faultfile.Step) (int64, error) {
		switch s.Op {
		case faultfile.Read:
			reads++
		case faultfile.Write:
			writes++
		default:
			others++
		}
		return 0, nil
	}
	return func() string {
		s := fmt.Sprintf("%d reads, %d writes, %d others", reads, writes, others)
		reads, writes, others = 0, 0, 0
		return s
	}
}

func TestCallsOfBacking(t *testing.T) {
	t.Parallel()
	x := newFixture(t)
	for _, c := range []struct {
		name        string
		size        int
		read        bool
		off, length int
		want        string
	}{
		{"aligned read", 8192, true, 512, 4096, "1 reads, 0 writes, 0 others"},
		{"long aligned read", 1 << 20, true, 0, 1 << 20, "1 reads, 0 writes, 0 others"},
		{"page over the end", 5001, true, 4096, 4096, "1 reads, 0 writes, 0 others"},
		{"megabyte over the end", 500001, true, 0, 1 << 20, "1 reads, 0 writes, 0 others"},
		{"unaligned read", 8192, true, 700, 3000, "1 reads, 0 writes, 0 others"},
		{"read past the end", 8192, true, 8192, 512, "0 reads, 0 writes, 0 others"},
		{"aligned write", 8192, false, 512, 4096, "0 reads, 1 writes, 0 others"},
		{"long aligned write", 1 << 20, false, 0, 1 << 20, "0 reads, 1 writes, 0 others"},
		{"aligned append", 8192, false, 8192, 4096, "0 reads, 1 writes, 0 others"},
		{"aligned write far past the end", 8192, false, 1 << 20, 4096, "0 reads, 1 writes, 0 others"},
		{"inside a unit", 8192, false, 100, 100, "1 reads, 1 writes, 0 others"},
		{"over a few units", 8192, false, 700, 3000, "1 reads, 1 writes, 0 others"},
		{"over many units", 65536, false, 700, 30000, "2 reads, 1 writes, 0 others"},
		{"end of the file", 5001, false, 4608, 393, "0 reads, 1 writes, 0 others"},
		{"unaligned append to whole units", 8192, false, 8192, 100, "0 reads, 1 writes, 1 others"},
	} {
		t.Run(c.name, func(t *testing.T) {
			d, f := x.newDisk(t, pattern(c.size, 1))
			count := calls(d)
			var err error
			if c.read {
				_, err = f.ReadAt(make([]byte, c.length), int64(c.off))
			} else {
				_, err = f.WriteAt(make([]byte, c.length), int64(c.off), cryptfile.Volatile)
			}
			if got := count(); got != c.want || err != nil {
				t.Errorf("%s, %v, want %s", got, err, c.want)
			}
		})
	}
}

// A truncation to the present size reaches the backing file, whose times change.
func TestTruncateToSameSize(t *testing.T) {
	t.Parallel()
	x := newFixture(t)
	for _, size := range []int{0, 512, 1000} {
		d, f := x.newDisk(t, pattern(size, 1))
		count := calls(d)
		must(t, f.Truncate(int64(size)))
		if got, want := count(), "0 reads, 0 writes, 1 others"; got != want {
			t.Errorf("%d bytes: %s, want %s", size, got, want)
		}
		if !bytes.Equal(content(t, f), pattern(size, 1)) {
			t.Errorf("%d bytes: changed", size)
		}
	}
}

// A synced write is one call, and an append with a tail known to be clean costs no sync.
func TestCallsOfAppends(t *testing.T) {
	t.Parallel()
	x := newFixture(t)
	d, f := x.newDisk(t, nil)
	write(t, f, pattern(100, 1), 0)
	count := calls(d)
	write(t, f, pattern(100, 2), 100)
	if got, want := count(), "1 reads, 1 writes, 1 others"; got != want {
		t.Errorf("append to a clean tail: %s, want %s", got, want)
	}
	must(t, f.Truncate(150))
	count()
	write(t, f, pattern(100, 2), 150)
	if got, want := count(), "3 reads, 2 writes, 2 others"; got != want {
		t.Errorf("append after a shrink: %s, want %s", got, want)
	}
	if _, err := f.WriteAt(make([]byte, 250), 0, cryptfile.Full); err != nil {
		t.Fatal(err)
	}
	if got, want := count(), "0 reads, 1 writes, 0 others"; got != want {
		t.Errorf("synced write: %s, want %s", got, want)
	}
}

func TestNoAllocation(t *testing.T) {
	x := newFixture(t)
	f := x.create(t, faultfile.New().Create()) // a recording disk would copy
	write(t, f, pattern(1<<20, 1), 0)
	p := make([]byte, 64<<10)
	for _, c := range []struct {
		name string
		do   func() (int, error)
	}{
		{"4 KiB read", func() (int, error) { return f.ReadAt(p[:4096], 8192) }},
		{"64 KiB read", func() (int, error) { return f.ReadAt(p, 0) }},
		{"4 KiB write", func() (int, error) { return f.WriteAt(p[:4096], 8192, cryptfile.Volatile) }},
		{"64 KiB write", func() (int, error) { return f.WriteAt(p, 0, cryptfile.Volatile) }},
	} {
		n := testing.AllocsPerRun(100, func() {
			if _, err := c.do(); err != nil {
				t.Error(err)
			}
		})
		if n != 0 {
			t.Errorf("%s: %v allocations", c.name, n)
		}
	}
}

func TestArguments(t *testing.T) {
	t.Parallel()
	x := newFixture(t)
	_, f := x.newDisk(t, pattern(1000, 1))
	write := func(off int64, n int) error {
		_, err := f.WriteAt(make([]byte, n), off, cryptfile.Volatile)
		return err
	}
	read := func(off int64) error {
		_, err := f.ReadAt(make([]byte, 10), off)
		return err
	}
	for _, c := range []struct {
		name string
		got  error
		want error
	}{
		{"read before the file", read(-1), unix.EINVAL},
		{"read at the last offset", read(math.MaxInt64), nil},
		{"write before the file", write(-1, 1), unix.EINVAL},
		{"write over the greatest size", write(layout.MaxLogical, 1), unix.EFBIG},
		{"write at the last offset", write(math.MaxInt64, 1), unix.EFBIG},
		{"write of nothing", write(math.MaxInt64-1, 0), unix.EFBIG},
		{"truncate to less than nothing", f.Truncate(-1), unix.EINVAL},
		{"truncate over the greatest size", f.Truncate(layout.MaxLogical + 1), unix.EFBIG},
		{"punch before the file", f.Punch(-1, 10), unix.EINVAL},
		{"punch of nothing", f.Punch(0, 0), unix.EINVAL},
		{"punch of less", f.Punch(0, -1), unix.EINVAL},
		{"punch past the file", f.Punch(5000, 10), nil},
		{"zero over the greatest size", f.Zero(math.MaxInt64, 1, true), unix.EFBIG},
		{"allocate of nothing", f.Allocate(0, 0, false), unix.EINVAL},
	} {
		if !errors.Is(c.got, c.want) || (c.want == nil) != (c.got == nil) {
			t.Errorf("%s: %v, want %v", c.name, c.got, c.want)
		}
	}
	if !bytes.Equal(content(t, f), pattern(1000, 1)) {
		t.Error("a refused operation changed the file")
	}
}

func TestClose(t *testing.T) {
	t.Parallel()
	x := newFixture(t)
	_, f := x.newDisk(t, pattern(1000, 1))
	must(t, f.Close())
	must(t, f.Close())
	_, readErr := f.ReadAt(make([]byte, 1), 0)
	_, writeErr := f.WriteAt(make([]byte, 1), 0, cryptfile.Volatile)
	_, seekErr := f.Seek(0, unix.SEEK_DATA)
	for name, err := range map[string]error{
		"ReadAt": readErr, "WriteAt": writeErr, "Seek": seekErr,
		"Truncate": f.Truncate(5), "Sync": f.Sync(cryptfile.Data), "Punch": f.Punch(0, 1),
		"Zero": f.Zero(0, 1, false), "Allocate": f.Allocate(0, 1, true),
	} {
		if !errors.Is(err, os.ErrClosed) {
			t.Errorf("%s after Close: %v", name, err)
		}
	}
}

// Open takes over its arguments also on failure.
func TestOpenOfShortFile(t *testing.T) {
	t.Parallel()
	x := newFixture(t)
	b := faultfile.New().Create()
	must(t, b.Truncate(layout.DataOffset-1))
	dek := x.dek(t)
	if _, err := cryptfile.Open(b, dek); !errors.Is(err, layout.ErrDamaged) {
		t.Errorf("Open: %v, want ErrDamaged", err)
	}
	if dek.Bytes() != nil {
		t.Error("the key is not wiped")
	}
}

// Every stored length opens: as the decoded size, or as empty with a warning. The file is then
// written and grown like any other.
func TestStoredLengths(t *testing.T) {
	t.Parallel()
	x := newFixture(t)
	for s := int64(0); s <= 1100; s++ {
		d, _ := x.newDisk(t, pattern(1100, 1))
		b := d.Open("f")
		must(t, b.Truncate(layout.DataOffset+s))
		f := x.open(t, b)
		n, ok := layout.LogicalLen(s)
		if f.Size() != n || errors.Is(f.Warning(), cryptfile.ErrLength) == ok {
			t.Fatalf("stored length %d: size %d, %v", s, f.Size(), f.Warning())
		}
		got := content(t, f)
		if n <= 1100-1100%512 && !bytes.Equal(got, pattern(1100, 1)[:n]) {
			t.Fatalf("stored length %d: reads wrong", s)
		}
		if size, _ := b.Size(); size != layout.DataOffset+s {
			t.Fatalf("stored length %d: changed by reading", s)
		}
		if s%2 == 0 {
			must(t, f.Truncate(n+700))
			got = resized(got, int(n)+700)
		} else {
			write(t, f, pattern(700, 2), n)
			got = append(got, pattern(700, 2)...)
		}
		if !bytes.Equal(content(t, f), got) {
			t.Fatalf("stored length %d: grown wrong", s)
		}
		if size, _ := b.Size(); size != layout.DataOffset+layout.StoredLen(n+700) {
			t.Fatalf("stored length %d: %d when grown", s, size)
		}
		must(t, f.Close())
	}
}

// Foreign bytes in padding and spill are never returned, and are gone after the file grows.
func TestDirtyTail(t *testing.T) {
	t.Parallel()
	x := newFixture(t)
	for _, size := range []int{1, 16, 511, 513, 1000, 5001} {
		for _, grow := range []int{1, 512 - size%512, 512, 513, 5000} {
			for _, by := range []string{"truncate", "write", "zero", "allocate"} {
				plain := pattern(size, 1)
				d, f := x.newDisk(t, plain)
				dirtyTail(t, x, d, f)
				f = x.open(t, d.Open("f"))
				if got := content(t, f); !bytes.Equal(got, plain) {
					t.Fatalf("%d bytes: wrong with a dirty tail", size)
				}
				want := resized(plain, size+grow)
				switch end := int64(size + grow); by {
				case "truncate":
					must(t, f.Truncate(end))
				case "write":
					write(t, f, []byte{7}, end)
					want = append(want, 7)
				case "zero":
					must(t, f.Zero(end-1, 1, false))
				case "allocate":
					must(t, f.Allocate(end-1, 1, false))
				}
				if got := content(t, f); !bytes.Equal(got, want) {
					t.Fatalf("%d bytes, grown by %s to %d: what was past the end came back", size, by, size+grow)
				}
				must(t, f.Close())
			}
		}
	}
}

// A changed byte is noise in its block of 16 bytes, and nowhere else; a file cut short by another
// program is damage.
func TestDamagedData(t *testing.T) {
	t.Parallel()
	x := newFixture(t)
	plain := pattern(2048, 1)
	d, f := x.newDisk(t, plain)
	b := d.Open("f")
	if _, err := b.WriteAt([]byte{0}, layout.DataOffset+700, cryptfile.Volatile); err != nil {
		t.Fatal(err)
	}
	got := content(t, f)
	const block = 700 / 16 * 16
	if bytes.Equal(got[block:block+16], plain[block:block+16]) {
		t.Error("a changed block reads as before")
	}
	copy(got[block:block+16], plain[block:])
	if !bytes.Equal(got, plain) {
		t.Error("other blocks changed")
	}
	must(t, b.Truncate(layout.DataOffset+1000))
	if _, err := f.ReadAt(make([]byte, 2048), 0); !errors.Is(err, layout.ErrDamaged) {
		t.Errorf("ReadAt of a file cut off: %v, want ErrDamaged", err)
	}
}
