package cryptfile_test

import (
	"bytes"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"vmcryptfs/fs/cryptfile"
	"vmcryptfs/fs/cryptfile/faultfile"
)

// near draws an offset or size at or beside an edge.
var near = rapid.Custom(func(t *rapid.T) int {
	return max(0, rapid.SampledFrom(append(edges, 70000)).Draw(t, "edge")+rapid.IntRange(-2, 2).Draw(t, "by"))
})

// Random operations: after each, the file equals a plain byte slice.
func TestModel(t *testing.T) {
	t.Parallel()
	x := newFixture(t)
	rapid.Check(t, func(rt *rapid.T) {
		d := faultfile.New()
		d.Without = rapid.SampledFrom([]uint32{0, unix.FALLOC_FL_ZERO_RANGE}).Draw(rt, "without")
		b := d.Create()
		f := x.create(t, b)
		var want []byte
		seed := byte(0)
		grow := func(n int) { want = resized(want, max(len(want), n)) }
		rt.Repeat(map[string]func(*rapid.T){
			"write": func(rt *rapid.T) {
				off, n := near.Draw(rt, "off"), 1+near.Draw(rt, "n")
				seed++
				d := cryptfile.Durability(rapid.IntRange(0, 2).Draw(rt, "durability"))
				if got, err := f.WriteAt(pattern(n, seed), int64(off), d); got != n || err != nil {
					rt.Fatalf("WriteAt = %d, %v", got, err)
				}
				grow(off + n)
				copy(want[off:], pattern(n, seed))
			},
			"truncate": func(rt *rapid.T) {
				n := near.Draw(rt, "n")
				must(t, f.Truncate(int64(n)))
				want = resized(want, n)
			},
			"punch": func(rt *rapid.T) {
				off, n := near.Draw(rt, "off"), 1+near.Draw(rt, "n")
				must(t, f.Punch(int64(off), int64(n)))
				clear(want[min(off, len(want)):min(off+n, len(want))])
			},
			"zero": func(rt *rapid.T) {
				off, n := near.Draw(rt, "off"), 1+near.Draw(rt, "n")
				keep := rapid.Bool().Draw(rt, "keep size")
				must(t, f.Zero(int64(off), int64(n), keep))
				if !keep {
					grow(off + n)
				}
				clear(want[min(off, len(want)):min(off+n, len(want))])
			},
			"allocate": func(rt *rapid.T) {
				off, n := near.Draw(rt, "off"), 1+near.Draw(rt, "n")
				keep := rapid.Bool().Draw(rt, "keep size")
				must(t, f.Allocate(int64(off), int64(n), keep))
				if !keep {
					grow(off + n)
				}
			},
			"read": func(rt *rapid.T) {
				off, n := near.Draw(rt, "off"), near.Draw(rt, "n")
				p := make([]byte, n)
				got, err := f.ReadAt(p, int64(off))
				if err != nil || !bytes.Equal(p[:got], want[min(off, len(want)):min(off+n, len(want))]) {
					rt.Fatalf("ReadAt(%d, %d) of %d = %d, %v, or other bytes", off, n, len(want), got, err)
				}
			},
			"seek": func(rt *rapid.T) { checkSeek(rt, f, want, near.Draw(rt, "off")) },
			"sync": func(*rapid.T) { must(t, f.Sync(cryptfile.Full)) },
			"reopen": func(*rapid.T) {
				must(t, f.Close())
				f = x.open(t, b)
			},
			"": func(rt *rapid.T) {
				if got := content(t, f); !bytes.Equal(got, want) {
					rt.Fatalf("the file of %d bytes is not the %d that it should be", len(got), len(want))
				}
			},
		})
		must(t, f.Close())
	})
}

// checkSeek checks that no nonzero byte lies in a hole, and that data and holes take turns.
func checkSeek(rt *rapid.T, f *cryptfile.File, want []byte, off int) {
	if off >= len(want) {
		return
	}
	size := int64(len(want))
	data, err := f.Seek(int64(off), unix.SEEK_DATA)
	if err == unix.ENXIO || err != nil && data == 0 {
		data = size
	}
	if !bytes.Equal(want[off:data], make([]byte, data-int64(off))) {
		rt.Fatalf("bytes that are not zero before the data at %d, from %d", data, off)
	}
	hole, err := f.Seek(min(data, size-1), unix.SEEK_HOLE)
	if err != nil || data < size && hole <= data || hole > size {
		rt.Fatalf("hole from %d at %d, %v", data, hole, err)
	}
}
