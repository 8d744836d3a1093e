package backing

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestRemembered(t *testing.T) {
	t.Parallel()
	now := time.Unix(1000, 0)
	old := Stamp{ctime: unix.Timespec{Sec: 990}}
	young := Stamp{ctime: unix.Timespec{Sec: 999}}
	var r remembered
	r = r.add(8<<4, &old, seenDamaged, now)
	r = r.add(16, &old, seenClear, now)
	r = r.add(16, &old, seenClear, now)     // a second name
	r = r.add(24, &young, seenClear, now)   // may change again unseen
	r = r.add(32, &old, seenOther, now)     // may be readable then
	r = r.add(40, &Stamp{}, seenEmpty, now) // as old as can be
	r = r.sorted()
	if len(r) != 3 {
		t.Fatalf("%d are remembered, want 3", len(r))
	}
	for hash, want := range map[uint64]seen{8<<4 | 3: seenDamaged, 16: seenClear, 40: seenEmpty} {
		if s, ok := r.find(hash); !ok || s != want {
			t.Errorf("find(%d) = %v, %v, want %v", hash, s, ok, want)
		}
	}
	for _, hash := range []uint64{0, 8, 24, 32, 1 << 60} {
		if s, ok := r.find(hash); ok {
			t.Errorf("find(%d) = %v", hash, s)
		}
	}
	full := make(remembered, mostRemembered)
	if len(full.add(48, &old, seenClear, now)) != mostRemembered {
		t.Error("it grows beyond its bound")
	}
}
