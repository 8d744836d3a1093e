package moves

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vmcryptfs/keys"
	"vmcryptfs/layout"
)

// place gives the directory vm a policy, which adopts.
func (s *site) place(policy string) {
	s.t.Helper()
	s.edit(func(set *layout.Settings) {
		set.Places = []layout.Place{{Path: "vm", ID: keys.NewFileID(), Policy: policy, Adopt: policy == "encrypt"}}
	})
}

// check gives the files that differ, by path.
func (s *site) check(r Check) map[string]Differ {
	s.t.Helper()
	found := map[string]Differ{}
	sum, err := s.m.Check(s.t.Context(), r, func(d Differ) error { found[d.Path] = d; return nil })
	s.must(err)
	if int(sum.Files) != len(found) || sum.Failed != 0 {
		s.t.Errorf("%+v for %d files", sum, len(found))
	}
	return found
}

// TestApply finds files that differ, short and long, and encrypts them; then nothing adopts.
func TestApply(t *testing.T) {
	s := newSite(t)
	s.must(os.Mkdir(filepath.Join(s.backing, "vm"), 0o755))
	s.plant("vm/a-flat.vmdk", 3<<20)
	s.plant("vm/a.nvram", 1<<10)
	s.plant("vm/a.log", 1<<10) // clear by right
	s.must(os.Symlink("a.nvram", filepath.Join(s.backing, "vm/b.nvram")))
	s.place("encrypt")
	found := s.check(Check{Rate: 1 << 20})
	d := found["vm/a-flat.vmdk"]
	if len(found) != 2 || d.Form != "unencrypted" || d.Wanted != "encrypted" || d.Bytes != 3<<20 || d.Seconds != 3 || d.WantedKEK.Identifier != "k" {
		t.Errorf("%+v", found)
	}
	var last Event
	sum, err := s.m.Apply(t.Context(), Request{Jobs: 2}, func(e Event) error { last = e; return nil })
	s.must(err)
	if sum.Moved != 2 || !sum.Complete || sum.Bytes != 3<<20+1<<10 || last.Bytes < last.Of-layout.UnitSize || last.Moved != 2 {
		t.Errorf("%+v, last %+v", sum, last)
	}
	if !s.encrypted("vm/a-flat.vmdk") || !s.encrypted("vm/a.nvram") || s.encrypted("vm/a.log") {
		t.Error("not as wanted")
	}
	if s.store.Settings().Places[0].Adopt {
		t.Error("the place adopts")
	}
	s.noneLeft()
	if sum := s.apply(Request{}); sum.Moved != 0 {
		t.Errorf("again: %+v", sum)
	}
	if sum := s.apply(Request{Deep: true, Paths: []string{"vm"}}); sum.Moved != 2 {
		t.Errorf("deep: %+v", sum)
	}
}

// TestRequests refuses what makes no sense.
func TestRequests(t *testing.T) {
	s := newSite(t)
	for _, r := range []Request{{Rate: -1}, {Jobs: mostJobs + 1}, {Paths: []string{"../x"}}, {Paths: []string{"/x"}}, {Paths: []string{"a\x00b"}}} {
		if _, err := s.m.Apply(t.Context(), r, func(Event) error { return nil }); !errors.Is(err, ErrRequest) {
			t.Errorf("%+v: %v", r, err)
		}
	}
	sum, err := s.m.Apply(t.Context(), Request{Paths: []string{"none"}}, func(Event) error { return nil })
	if err != nil || sum.Failed != 1 || sum.Complete {
		t.Errorf("%+v, %v", sum, err)
	}
}

// TestCutOff: the end of a request pauses what it began, and the same request goes on with it.
func TestCutOff(t *testing.T) {
	s := newSite(t)
	s.plant("a.log", 200<<20)
	s.edit(func(set *layout.Settings) { set.Encrypt = []string{"*.log"} })
	s.plant("b.log", 200<<20)
	ctx, stop := context.WithCancel(t.Context())
	sum, err := s.m.Apply(ctx, Request{Rate: 1 << 30}, func(e Event) error {
		if e.Bytes > 0 {
			stop()
		}
		return nil
	})
	if !errors.Is(err, context.Canceled) || sum.Complete || sum.Left != 2 {
		t.Fatalf("%+v, %v", sum, err)
	}
	s.until("a pause", func(v View) bool { return v.State == Paused && v.Kind == "encrypt" })
	if n := len(s.store.Settings().Moves); n != 1 {
		t.Errorf("%d ids are listed, want that of the move that has begun", n)
	}
	if found := s.check(Check{}); (found["a.log"].Form == "moving") == (found["b.log"].Form == "moving") {
		t.Errorf("%+v", found)
	}
	s.apply(Request{})
	if !s.encrypted("a.log") {
		t.Error("a.log is in clear")
	}
}

// TestNextProcess: a Manager leaves a move listed, and the next one goes on; what is found nowhere is
// listed no more.
func TestNextProcess(t *testing.T) {
	s := newSite(t)
	text := s.plant("a.log", 200<<20)
	jobs, err := s.m.begin(t.Context(), []Task{{"a.log", layout.MoveEncrypt}})
	s.must(err)
	copied := make(chan struct{}, 1)
	jobs[0].told = func(int64) {
		select {
		case copied <- struct{}{}:
		default:
		}
	}
	jobs[0].rate = &limiter{rate: 1 << 20}
	s.m.start(jobs[0])
	<-copied
	s.must(s.m.Close())
	s.edit(func(set *layout.Settings) { set.Moves = append(set.Moves, keys.NewFileID()) })
	if n := len(s.store.Settings().Moves); n != 2 {
		t.Fatalf("%d ids are listed", n)
	}
	s.m = s.manager()
	list, err := s.m.Look(t.Context())
	if err != nil || len(list) != 1 || list[0].Kind != "encrypt" || list[0].Size != 200<<20 {
		t.Errorf("%+v, %v", list, err)
	}
	ended, err := s.m.Finish(t.Context(), []string{"a.log"}, true)
	if err != nil || len(ended) != 1 {
		t.Errorf("%+v, %v", ended, err)
	}
	s.isClear("a.log", text)
	s.noneLeft()
}

// TestPolicyTurns: a move to clear turns back as soon as the policy encrypts.
func TestPolicyTurns(t *testing.T) {
	s := newSite(t)
	s.plant("a.log", 200<<20)
	s.must(s.wait(s.begin(Task{"a.log", layout.MoveEncrypt})))
	jobs, err := s.m.begin(t.Context(), []Task{{"a.log", layout.MoveDecrypt}})
	s.must(err)
	turned := false
	jobs[0].told = func(int64) {
		if !turned {
			turned = true
			s.edit(func(set *layout.Settings) { set.Encrypt = []string{"*.log"} })
		}
	}
	s.m.start(jobs[0])
	if err := s.wait(jobs[0]); !errors.Is(err, errTurned) {
		t.Errorf("%v, want %v", err, errTurned)
	}
	if !s.encrypted("a.log") {
		t.Error("a.log is in clear")
	}
	s.noneLeft()
}

// TestNoMove: what a move refuses for good is a failure, and its id is not left.
func TestNoMove(t *testing.T) {
	s := newSite(t)
	s.plant("a.log", 2<<20)
	s.must(os.Link(filepath.Join(s.backing, "a.log"), filepath.Join(s.backing, "b.log")))
	s.edit(func(set *layout.Settings) { set.Encrypt = []string{"a.log"} })
	sum, err := s.m.Apply(t.Context(), Request{}, func(Event) error { return nil })
	if err != nil || sum.Failed != 1 || sum.Left != 1 || sum.Complete {
		t.Errorf("%+v, %v", sum, err)
	}
	s.noneLeft()
	if err := s.wait(s.begin(Task{"none.log", layout.MoveEncrypt})); !errors.Is(err, errVanished) {
		t.Errorf("%v, want %v", err, errVanished)
	}
	s.noneLeft()
	if _, err := s.m.Do(t.Context(), Change{Do: DoAccept, Which: []string{"a.log"}}); !errors.Is(err, ErrNoMark) {
		t.Errorf("%v, want %v", err, ErrNoMark)
	}
}

// TestTooMany: no more moves are listed than the settings may.
func TestTooMany(t *testing.T) {
	s := newSite(t)
	s.edit(func(set *layout.Settings) {
		for range layout.MaxMoves - 1 {
			set.Moves = append(set.Moves, keys.NewFileID())
		}
	})
	jobs, err := s.m.begin(t.Context(), make([]Task, 3))
	if err != nil || len(jobs) != 1 || len(s.m.List()) != 1 {
		t.Errorf("%d jobs, %v", len(jobs), err)
	}
	if _, err := s.m.begin(t.Context(), make([]Task, 3)); !errors.Is(err, ErrTooMany) {
		t.Errorf("%v, want %v", err, ErrTooMany)
	}
}

// TestHalt: all moves pause, also those to come, and go on.
func TestHalt(t *testing.T) {
	s := newSite(t)
	s.plant("a.log", 2<<20)
	s.m.Halt("a test")
	j := s.begin(Task{"a.log", layout.MoveEncrypt})
	s.until("a pause", func(v View) bool { return v.State == Paused && v.Why == "a test" })
	if st := NewStatus(s.m.List()); st.Count != 1 || st.Paused != 1 {
		t.Errorf("%+v", st)
	}
	s.m.Release("a test")
	s.must(s.wait(j))
}

// TestNoSpace: a move that BACKING refuses waits, says why, and goes on when there is space.
func TestNoSpace(t *testing.T) {
	s := newSite(t)
	dir := filepath.Join(s.backing, "small")
	s.must(os.Mkdir(dir, 0o755))
	if err := unix.Mount("none", dir, "tmpfs", 0, "size=16m"); err != nil {
		t.Skip("no tmpfs: ", err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	s.plant("small/a.log", 4<<20)
	s.plant("small/ballast.log", 11<<20)
	j := s.begin(Task{"small/a.log", layout.MoveEncrypt})
	s.until("a refusal", func(v View) bool { return v.State == Refused && v.Why != "" })
	if st := NewStatus(s.m.List()); len(st.Refused) != 1 {
		t.Errorf("%+v", st)
	}
	s.must(os.Remove(filepath.Join(dir, "ballast.log")))
	s.must(s.wait(j))
	if !s.encrypted("small/a.log") {
		t.Error("a.log is in clear")
	}
	s.noneLeft()
}

func TestLimiter(t *testing.T) {
	l := &limiter{rate: 1 << 20}
	now := time.Now()
	for i, want := range []time.Duration{time.Second, 2 * time.Second} {
		if got := l.due(1<<20, now); got != want {
			t.Errorf("chunk %d is due after %v, want %v", i, got, want)
		}
	}
	if got := l.due(1<<19, now.Add(time.Minute)); got != time.Second/2 {
		t.Errorf("after a pause: %v", got)
	}
	var none *limiter
	if err := none.wait(t.Context(), nil, 1<<40); err != nil {
		t.Error(err)
	}
}
