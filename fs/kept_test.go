package fs

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vmcryptfs/fs/backing"
	"vmcryptfs/layout"
)

// keepCensus keeps r's census until the test or stop ends it.
func keepCensus(t *testing.T, r *rig) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var keeping sync.WaitGroup
	keeping.Go(func() { r.fs.KeepCensus(ctx) })
	stop = func() { cancel(); keeping.Wait() }
	t.Cleanup(stop)
	return stop
}

// age has all files be older than what the census thinks too young to be remembered.
func age() { time.Sleep(youngest + 100*time.Millisecond) }

// plantMany makes n files of each of several forms and rules directly in BACKING.
func plantMany(t *testing.T, dir string, n int) {
	t.Helper()
	for _, name := range []string{"a%d.log", "b%d.img", "c%d.txt"} {
		for i := range n {
			path := filepath.Join(dir, fmt.Sprintf(name, i))
			if err := os.WriteFile(path, []byte("x"), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// The census is kept: what did not change is not opened again, what did is, and both are in
// what a caller gets, however the change was made.
func TestCensusIsKept(t *testing.T) {
	r := newRig(t, nil)
	plantMany(t, r.backing, 200)
	age()
	keepCensus(t, r)
	ctx := t.Context()
	c := r.fs.Counted(ctx, time.Minute)
	if !c.Complete || c.Err != nil || c.Clear != 200 || c.Unencrypted != 400 {
		t.Fatalf("first census: %+v", c)
	}
	again := r.fs.newCensus()
	if err := again.take(ctx); err != nil || again.looks != 0 || again.Clear != 200 || again.Unencrypted != 400 {
		t.Errorf("a second census opens %d files and counts %+v, %v; want none opened, the same counts", again.looks, again.Census, err)
	}
	// By the mount: made, converted by a rename, removed. In BACKING: planted, changed in place.
	r.write("new.qcow2", "disk")
	if err := os.Remove(r.path("a0.log")); err != nil {
		t.Fatal(err)
	}
	r.plant("planted.log", "log")
	if err := os.WriteFile(filepath.Join(r.backing, "b1.img"), []byte(layout.Magic), 0o644); err != nil {
		t.Fatal(err)
	}
	before := time.Now()
	c = r.fs.Counted(ctx, time.Minute)
	if !c.Complete || c.At.Before(before) || c.Encrypted != 1 || c.Clear != 200 || c.Unencrypted != 399 || c.Damaged != 1 {
		t.Errorf("after changes: %+v, of %v; want it counted after %v", c, c.At, before)
	}
	again = r.fs.newCensus()
	if err := again.take(ctx); err != nil || again.looks > 3 {
		t.Errorf("after 3 files changed, %d are looked into, %v", again.looks, err)
	}
}

// A huge datastore: who asks meanwhile is told how far it is, and does not wait for the end.
func TestCensusUnderWay(t *testing.T) {
	r := newRig(t, nil)
	plantMany(t, r.backing, 100) // 300 files: one rest
	k := &r.fs.kept
	ctx, cancel := context.WithCancel(t.Context())
	resting := make(chan Counted)
	c := r.fs.newCensus()
	n := 0
	c.saw = func(seen, *backing.Stamp, layout.Class) {
		if n++; n == paceEntries {
			k.tell(c.Census)
			resting <- r.fs.Counted(ctx, time.Millisecond)
		}
	}
	go c.take(ctx)
	got := <-resting
	cancel()
	if sum := got.Clear + got.Unencrypted; got.Complete || !got.At.IsZero() || sum < 200 || sum > paceEntries {
		t.Errorf("while it counts: %+v; want the counts so far", got)
	}
}

// Where a walk takes longer than one waits, the last one counts, at once.
func TestCensusTooLong(t *testing.T) {
	r := newRig(t, nil)
	r.plant("a.log", "log")
	stop := keepCensus(t, r)
	first := r.fs.Counted(t.Context(), time.Minute)
	stop() // nobody would answer
	r.fs.kept.again = time.Hour
	r.plant("b.log", "log")
	if c := r.fs.Counted(t.Context(), time.Minute); !c.Complete || c.Clear != 1 || c.At != first.At {
		t.Errorf("got %+v, want the last walk's, of %v", c, first.At)
	}
	if len(r.fs.kept.asked) > 0 {
		t.Error("a walk is made for everybody who asks, however long it takes")
	}
	// When the counts are old, who asks has them made anew for the next.
	r.fs.kept.last.At = time.Now().Add(-askedShare * 2 * time.Hour)
	if r.fs.Counted(t.Context(), time.Minute); len(r.fs.kept.asked) != 1 {
		t.Error("no walk is wanted, though the counts are old")
	}
}

// The end of the keeper ends a walk that rests, and leaves no counts of half a walk.
func TestCensusEnds(t *testing.T) {
	r := newRig(t, nil)
	plantMany(t, r.backing, 2000)
	keepCensus(t, r)()
	if c := r.fs.Counted(t.Context(), 0); c.Complete && c.Clear+c.Unencrypted != 6000 {
		t.Errorf("complete, with %+v", c)
	}
}

func TestRemembered(t *testing.T) {
	t.Parallel()
	now := time.Unix(1000, 0)
	old := backing.Stamp{Ctime: unix.Timespec{Sec: 990}}
	young := backing.Stamp{Ctime: unix.Timespec{Sec: 999}}
	var r remembered
	r = r.add(8<<4, &old, seenDamaged, now)
	r = r.add(16, &old, seenClear, now)
	r = r.add(16, &old, seenClear, now)             // a second name
	r = r.add(24, &young, seenClear, now)           // may change again unseen
	r = r.add(32, &old, seenOther, now)             // may be readable then
	r = r.add(40, &backing.Stamp{}, seenEmpty, now) // as old as can be
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
