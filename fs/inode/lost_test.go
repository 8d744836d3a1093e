package inode

import (
	"fmt"
	"os"
	"slices"
	"testing"
	"time"
)

// TestLostNames: a lost name of a file, lost in any way, counts for LostFor by the table's clock.
func TestLostNames(t *testing.T) {
	for what, lose := range map[string]func(s *site, n *Inode, at Place){
		"by a rename":   func(_ *site, n *Inode, at Place) { n.LoseName(at) },
		"removed":       func(s *site, _ *Inode, at Place) { s.tab.Removed(at) },
		"found gone":    func(s *site, _ *Inode, at Place) { s.tab.FoundGone(at) },
		"replaced":      func(s *site, _ *Inode, at Place) { s.file("other"); s.tab.RenameName(s.place("other"), at, false) },
		"found another": func(s *site, _ *Inode, _ Place) { s.do(os.Remove(s.path("a"))); s.file("a") },
	} {
		t.Run(what, func(t *testing.T) {
			s := newSite(t)
			n := s.file("a")
			n.Ref() // so that the number is given to no other file
			if lost, more := n.LostNames(); len(lost) > 0 || more {
				t.Errorf("lost before: %v, %t", lost, more)
			}
			lose(s, n, s.place("a"))
			s.now = s.now.Add(LostFor - 1)
			if lost, more := n.LostNames(); !slices.Equal(lost, []Place{s.place("a")}) || more {
				t.Errorf("lost %v, %t", lost, more)
			}
			s.now = s.now.Add(1)
			if lost, more := n.LostNames(); len(lost) > 0 || more {
				t.Errorf("lost after that: %v, %t", lost, more)
			}
		})
	}
}

// TestLostOnceMore: a name lost again counts once, from the last loss.
func TestLostOnceMore(t *testing.T) {
	s := newSite(t)
	n := s.file("a")
	for range 2 * mostLost {
		n.LoseName(s.place("a"))
		s.now = s.now.Add(LostFor / 2)
	}
	if lost, more := n.LostNames(); len(lost) != 1 || more {
		t.Errorf("lost %v, %t", lost, more)
	}
	s.now = s.now.Add(LostFor / 2)
	if lost, _ := n.LostNames(); len(lost) != 0 {
		t.Errorf("lost after that: %v", lost)
	}
}

// TestMoreLost: names without room are remembered as "more", as long as the last of them counts.
// Names whose time is over make room.
func TestMoreLost(t *testing.T) {
	s := newSite(t)
	n := s.file("a")
	lose := func(from, to int) {
		for i := range to - from {
			n.LoseName(s.place(fmt.Sprint(from + i)))
		}
	}
	for _, tt := range []struct {
		what string
		do   func()
		lost int
		more bool
	}{
		{"as many as there is room for", func() { lose(0, mostLost) }, mostLost, false},
		{"one of them again", func() { lose(0, 1) }, mostLost, false},
		{"one more, later", func() { s.now = s.now.Add(time.Second); lose(mostLost, mostLost+1) }, mostLost, true},
		{"when the others count no more", func() { s.now = s.now.Add(LostFor - 1) }, 0, true},
		{"one more then", func() { lose(0, 1) }, 1, true},
		{"when that one counts alone", func() { s.now = s.now.Add(1) }, 1, false},
	} {
		tt.do()
		if lost, more := n.LostNames(); len(lost) != tt.lost || more != tt.more {
			t.Errorf("%s: %d are lost, more %t; want %d, %t", tt.what, len(lost), more, tt.lost, tt.more)
		}
	}
}

// TestDirectoryLosesNothing: only files are judged by their names.
func TestDirectoryLosesNothing(t *testing.T) {
	s := newSite(t)
	d := s.mkdir("d")
	d.LoseName(s.place("d"))
	s.tab.FoundGone(s.place("d"))
	if lost, more := d.LostNames(); len(lost) > 0 || more || s.tab.believed.count > 0 {
		t.Errorf("lost %v, %t; %d believers", lost, more, s.tab.believed.count)
	}
}

// TestHarmlessLost: names that are harmless by the rules that hold take no room, and count again
// once other rules hold.
func TestHarmlessLost(t *testing.T) {
	s := newSite(t)
	s.tab.Harmless = func(at Place) bool { return at.Name != "vm.vmss" }
	n := s.file("vm.log")
	n.LoseName(s.place("vm.vmss"))
	for i := range 3 * mostLost {
		n.LoseName(s.place(fmt.Sprint(i, ".log")))
	}
	if lost, more := n.LostNames(); !slices.Contains(lost, s.place("vm.vmss")) || more {
		t.Errorf("lost %v, %t", lost, more)
	}
	s.now = s.now.Add(time.Second)
	s.tab.JudgeAnew()
	if _, more := n.LostNames(); !more {
		t.Error("names that were passed over are harmless by other rules, too")
	}
	s.now = s.now.Add(LostFor)
	if lost, more := n.LostNames(); len(lost) > 0 || more {
		t.Errorf("lost %v, %t", lost, more)
	}
}
