package inode

import (
	"os"
	"slices"
	"testing"
	"time"
)

// TestFollow: after other hands took a name from a file, and a rename of that name, the file loses
// the new name as well, as long as the kernel may know the file by the old one.
func TestFollow(t *testing.T) {
	for _, tt := range []struct {
		what     string
		take     func(s *site, at Place)
		after    time.Duration
		exchange bool
		from, to string // of the rename
		follows  string // the name that the file loses; "": none
	}{
		{"taken by other hands", func(s *site, at Place) { s.tab.FoundGone(at) }, 0, false, "a", "b", "b"},
		{"exchanged", func(s *site, at Place) { s.tab.FoundGone(at) }, 0, true, "a", "b", "b"},
		{"exchanged the other way", func(s *site, at Place) { s.tab.FoundGone(at) }, 0, true, "b", "a", "b"},
		{"renamed to that name", func(s *site, at Place) { s.tab.FoundGone(at) }, 0, false, "b", "a", ""},
		{"another name", func(s *site, at Place) { s.tab.FoundGone(at) }, 0, false, "c", "b", ""},
		{"almost forgotten", func(s *site, at Place) { s.tab.FoundGone(at) }, LostFor - 1, false, "a", "b", "b"},
		{"forgotten", func(s *site, at Place) { s.tab.FoundGone(at) }, LostFor, false, "a", "b", ""},
		{"removed through the mount", func(s *site, at Place) { s.tab.Removed(at) }, 0, false, "a", "b", ""},
	} {
		t.Run(tt.what, func(t *testing.T) {
			s := newSite(t)
			n := s.file("a")
			tt.take(s, s.place("a"))
			s.now = s.now.Add(tt.after)
			s.tab.RenameName(s.place(tt.from), s.place(tt.to), tt.exchange)
			lost, _ := n.LostNames()
			if got := slices.Contains(lost, s.place("b")); got != (tt.follows != "") {
				t.Errorf("lost %v", lost)
			}
			if tt.follows == "" {
				return
			}
			s.tab.RenameName(s.place("b"), s.place("c"), false) // and so on
			if lost, _ := n.LostNames(); !slices.Contains(lost, s.place("c")) {
				t.Errorf("lost after one more rename: %v", lost)
			}
		})
	}
}

// TestOverfull: there is room for so many believers. A believer without room counts for LostFor;
// then there is room again.
func TestOverfull(t *testing.T) {
	s := newSite(t)
	b, at := &s.tab.believed, s.place("a")
	add := func(from, to uint64) {
		for id := from; id < to; id++ {
			b.add(at.Dir.In(string(rune('a'+id%3))), believer{id, id}, s.tab.Now())
		}
	}
	for _, tt := range []struct {
		what  string
		do    func()
		full  bool
		count int
	}{
		{"as many as there is room for", func() { add(0, mostBelieved) }, false, mostBelieved},
		{"the same again", func() { add(0, mostBelieved) }, false, mostBelieved},
		{"one more", func() { add(mostBelieved, mostBelieved+1) }, true, mostBelieved},
		{"just before that one is forgotten", func() { s.now = s.now.Add(LostFor - 1) }, true, mostBelieved},
		{"when it is forgotten", func() { s.now = s.now.Add(1) }, false, mostBelieved},
		{"one more then", func() { add(mostBelieved+1, mostBelieved+2) }, false, 1},
		{"as many again", func() { add(0, mostBelieved-1) }, false, mostBelieved},
	} {
		tt.do()
		if got := s.tab.Overfull(); got != tt.full || b.count != tt.count {
			t.Errorf("%s: overfull %t, %d believers; want %t, %d", tt.what, got, b.count, tt.full, tt.count)
		}
	}
	n := 0
	for _, all := range b.by {
		n += len(all)
	}
	if n != b.count {
		t.Errorf("%d believers are counted, there are %d", b.count, n)
	}
}

// TestBelieverIsNoNumber: the names by which the kernel knew a file are no names of the next file
// with that number, once the kernel has forgotten the number; until then they are.
func TestBelieverIsNoNumber(t *testing.T) {
	for _, forgotten := range []bool{true, false} {
		dir := t.TempDir()
		for _, name := range []string{"a.log", "b.log"} {
			if err := os.WriteFile(dir+"/"+name, nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		var tab Table
		fd, st := openByPath(t, dir)
		tab.Init(fd, st, fresh)
		root := tab.Root()
		fd, st = openByPath(t, dir+"/a.log")
		a := tab.Enter(fd, st, 1, Place{root, "a.log"})
		ino := st.Ino
		tab.FoundGone(Place{root, "a.log"}) // other hands renamed the file
		if forgotten {
			tab.Forget(a.ID, 1)
		} else {
			a.AddName(Place{root, "c.vmss"})
			tab.fds.relieve() // else BACKING does not give the number away
		}
		fd, st = openByPath(t, dir+"/b.log")
		st.Ino = ino
		b := tab.Enter(fd, st, 2, Place{root, "b.log"})
		if b == a || b.ID != a.ID {
			t.Fatalf("node %d has ID %d: nothing is tested", b.Order, b.ID)
		}
		if lost, _ := b.LostNames(); slices.Contains(lost, Place{root, "c.vmss"}) == forgotten {
			t.Errorf("forgotten %t: the next file of the number has lost %v", forgotten, lost)
		}
		tab.RenameName(Place{root, "a.log"}, Place{root, "vm.vmss"}, false)
		if lost, _ := b.LostNames(); slices.Contains(lost, Place{root, "vm.vmss"}) == forgotten {
			t.Errorf("forgotten %t: the next file of the number has lost %v", forgotten, lost)
		}
		if err := tab.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
