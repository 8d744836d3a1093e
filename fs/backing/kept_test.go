package backing

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vmcryptfs/layout"
)

// newDirectory is a directory with nothing in it, and a Counter of it by the built-in rules.
func newDirectory(t *testing.T) (dir string, c *Counter) {
	t.Helper()
	dir = t.TempDir()
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	verdict := func(_ int, at string) layout.Verdict { return layout.Classify(filepath.Base(at)) }
	return dir, NewCounter(fd, verdict, func(string) bool { return false })
}

// plant makes a file.
func plant(t *testing.T, dir, name, content string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

// keep keeps c's census until the test or stop ends it.
func keep(t *testing.T, c *Counter) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var keeping sync.WaitGroup
	keeping.Go(func() { c.Keep(ctx) })
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
			plant(t, dir, fmt.Sprintf(name, i), "x")
		}
	}
}

// The census is kept: what did not change is not opened again, what did is, and both are in
// what a caller gets, however the change was made.
func TestCensusIsKept(t *testing.T) {
	dir, counter := newDirectory(t)
	plantMany(t, dir, 200)
	age()
	keep(t, counter)
	ctx := t.Context()
	c := counter.Counted(ctx, time.Minute)
	if !c.Complete || c.Err != nil || c.Clear != 200 || c.Unencrypted != 400 {
		t.Fatalf("first census: %+v", c)
	}
	again := counter.begin()
	if err := again.take(ctx); err != nil || again.looks != 0 || again.Clear != 200 || again.Unencrypted != 400 {
		t.Errorf("a second census opens %d files and counts %+v, %v; want none opened, the same counts", again.looks, again.Census, err)
	}
	// Made, removed, and changed in place.
	plant(t, dir, "new.nvram", "")
	if err := os.Remove(filepath.Join(dir, "a0.log")); err != nil {
		t.Fatal(err)
	}
	plant(t, dir, "planted.log", "log")
	plant(t, dir, "b1.img", layout.Magic)
	before := time.Now()
	c = counter.Counted(ctx, time.Minute)
	if !c.Complete || c.At.Before(before) || c.Empty != 1 || c.Clear != 200 || c.Unencrypted != 399 || c.Damaged != 1 {
		t.Errorf("after changes: %+v, of %v; want it counted after %v", c, c.At, before)
	}
	again = counter.begin()
	if err := again.take(ctx); err != nil || again.looks > 3 {
		t.Errorf("after 3 files changed, %d are looked into, %v", again.looks, err)
	}
}

// A huge datastore: who asks meanwhile is told how far it is, and does not wait for the end.
func TestCensusUnderWay(t *testing.T) {
	dir, counter := newDirectory(t)
	plantMany(t, dir, 100) // 300 files: one rest
	ctx, cancel := context.WithCancel(t.Context())
	resting := make(chan Counted)
	c := counter.begin()
	n := 0
	c.saw = func(seen, *Stamp, layout.Class) {
		if n++; n == paceEntries {
			counter.tell(c.Census)
			resting <- counter.Counted(ctx, time.Millisecond)
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
	dir, counter := newDirectory(t)
	plant(t, dir, "a.log", "log")
	stop := keep(t, counter)
	counter.Counted(t.Context(), time.Minute)
	stop()                                   // nobody would answer
	first := counter.Counted(t.Context(), 0) // perhaps of one walk more
	for len(counter.asked) > 0 {
		<-counter.asked
	}
	counter.again = time.Hour
	plant(t, dir, "b.log", "log")
	if c := counter.Counted(t.Context(), time.Minute); !c.Complete || c.Clear != 1 || c.At != first.At {
		t.Errorf("got %+v, want the last walk's, of %v", c, first.At)
	}
	if len(counter.asked) > 0 {
		t.Error("a walk is made for everybody who asks, however long it takes")
	}
	// When the counts are old, who asks has them made anew for the next.
	counter.last.At = time.Now().Add(-askedShare * 2 * time.Hour)
	if counter.Counted(t.Context(), time.Minute); len(counter.asked) != 1 {
		t.Error("no walk is wanted, though the counts are old")
	}
}

// The end of the keeper ends a walk that rests, and leaves no counts of half a walk.
func TestCensusEnds(t *testing.T) {
	dir, counter := newDirectory(t)
	plantMany(t, dir, 2000)
	keep(t, counter)()
	if c := counter.Counted(t.Context(), 0); c.Complete && c.Clear+c.Unencrypted != 6000 {
		t.Errorf("complete, with %+v", c)
	}
}
