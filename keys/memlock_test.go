package keys

import (
	"os"
	"testing"
)

// TestFilesWithin: as many files as filesWithin reports do have room within the limit.
func TestFilesWithin(t *testing.T) {
	const schedule = 768
	if os.Getpagesize() > chunkSize {
		t.Fatal("pages are larger than chunks: count anew")
	}
	for limit, want := range map[uint64]int{0: 0, chunkSize: 0, 2 * chunkSize: 21, 64 << 10: 63, 512 << 10: 609, 8 << 20: 9933} {
		if got := filesWithin(limit, schedule); got != want {
			t.Errorf("%d bytes: %d files, want %d", limit, got, want)
		}
	}
	for _, limit := range []uint64{2 * chunkSize, 64 << 10, 512 << 10} {
		var a arena
		n := filesWithin(limit, schedule)
		var slots []slot
		for range n {
			for _, size := range []int{dekSize, schedule} {
				_, s, err := a.alloc(size)
				if err != nil {
					t.Fatal(err)
				}
				slots = append(slots, s)
			}
		}
		used := make(map[*chunk]bool)
		for _, s := range slots {
			used[s.chunk] = true
		}
		if got := uint64(len(used) * chunkSize); got > limit {
			t.Errorf("%d files lock %d bytes, more than %d", n, got, limit)
		}
		for _, s := range slots {
			a.release(s)
		}
	}
}
