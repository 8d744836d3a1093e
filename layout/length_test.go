package layout

import (
	"fmt"
	"math"
	"testing"
)

func TestStoredLen(t *testing.T) {
	for _, c := range []struct{ n, want int64 }{
		{0, 0}, {1, 513}, {15, 527}, {16, 528}, {511, 1023}, {512, 512}, {513, 1025},
		{1023, 1535}, {1024, 1024}, {1<<20 - 1, 1<<20 + 511}, {1 << 20, 1 << 20},
		{MaxLogical, MaxLogical + UnitSize},
	} {
		if got := StoredLen(c.n); got != c.want {
			t.Errorf("StoredLen(%d) = %d, want %d", c.n, got, c.want)
		}
	}
}

func TestLogicalLen(t *testing.T) {
	for _, c := range []struct {
		s, want int64
		ok      bool
	}{
		{0, 0, true}, {1, 0, false}, {511, 0, false}, {512, 512, true}, {513, 1, true},
		{1023, 511, true}, {1024, 1024, true}, {1025, 513, true},
		{-1, 0, false}, {-512, 0, false}, {-DataOffset, 0, false}, {math.MinInt64, 0, false},
	} {
		got, ok := LogicalLen(c.s)
		if got != c.want || ok != c.ok {
			t.Errorf("LogicalLen(%d) = %d, %v, want %d, %v", c.s, got, ok, c.want, c.ok)
		}
	}
}

// edges are lengths around every edge of the coding, and the extremes.
func edges() []int64 {
	var lengths []int64
	for n := range int64(4*UnitSize + 3) {
		lengths = append(lengths, n)
	}
	for _, at := range []int64{1 << 20, 1 << 32, 1 << 40, MaxLogical - 2*UnitSize} {
		for d := int64(-UnitSize - 2); d <= UnitSize+2; d++ {
			lengths = append(lengths, at+d)
		}
	}
	return append(lengths, MaxLogical-1, MaxLogical)
}

func TestLengthRoundTrip(t *testing.T) {
	seen := make(map[int64]int64)
	for _, n := range edges() {
		s := StoredLen(n)
		if s < n || s > n+UnitSize || s > math.MaxInt64-DataOffset {
			t.Fatalf("StoredLen(%d) = %d", n, s)
		}
		if other, ok := seen[s]; ok && other != n {
			t.Fatalf("lengths %d and %d are both stored as %d", n, other, s)
		}
		seen[s] = n
		if got, ok := LogicalLen(s); got != n || !ok {
			t.Fatalf("LogicalLen(StoredLen(%d)) = %d, %v", n, got, ok)
		}
		if s < (n+UnitSize-1)/UnitSize*UnitSize {
			t.Fatalf("the last unit of length %d is not stored whole in %d", n, s)
		}
	}
}

// TestStoredRoundTrip tries every length of a backing file, up to the greatest: every decoded
// length can be encoded, with no overflow.
func TestStoredRoundTrip(t *testing.T) {
	const greatest = math.MaxInt64 - DataOffset
	lengths := edges()
	for d := range int64(3 * UnitSize) {
		lengths = append(lengths, greatest-d)
	}
	for _, s := range lengths {
		n, ok := LogicalLen(s)
		if !ok {
			if s >= UnitSize {
				t.Fatalf("stored length %d does not decode", s)
			}
			continue
		}
		if got := StoredLen(n); got != s {
			t.Fatalf("StoredLen(LogicalLen(%d)) = %d", s, got)
		}
	}
}

func TestStoredLenRefuses(t *testing.T) {
	for _, n := range []int64{-1, math.MinInt64, math.MaxInt64 - DataOffset, math.MaxInt64 - DataOffset + 1, math.MaxInt64} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Errorf("StoredLen(%d) did not panic", n)
				}
			}()
			StoredLen(n)
		})
	}
}
