package powerloss

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// left returns every set of names that random cuts leave of a namespace with "a" (inode 3) in the
// root and an empty directory "d" (inode 2), changed by do.
func left(do func(*namespace)) map[string]bool {
	s := newNamespace(names{root: {"d": 2, "a": 3}, 2: {}})
	do(s)
	seen := map[string]bool{}
	for seed := range uint64(300) {
		n := s.cut(rand.New(rand.NewPCG(seed, 0)))
		var shown []string
		for dir, entries := range n {
			for name, ino := range entries {
				shown = append(shown, fmt.Sprintf("%d/%s=%d", dir, name, ino))
			}
		}
		slices.Sort(shown)
		seen[strings.Join(shown, " ")] = true
	}
	return seen
}

func TestCutOfNames(t *testing.T) {
	t.Parallel()
	rename := func(s *namespace) { s.change(edit{root, "a", 0}, edit{2, "b", 3}) }
	for _, c := range []struct {
		name string
		do   func(*namespace)
		want []string
	}{
		{"a rename comes whole or not", rename, []string{"1/a=3 1/d=2", "1/d=2 2/b=3"}},
		{"a directory in order", func(s *namespace) {
			s.change(edit{root, "x", 4})
			s.change(edit{root, "y", 5})
		}, []string{"1/a=3 1/d=2", "1/a=3 1/d=2 1/x=4", "1/a=3 1/d=2 1/x=4 1/y=5"}},
		{"two directories apart", func(s *namespace) {
			s.change(edit{root, "x", 4})
			s.change(edit{2, "y", 5})
		}, []string{"1/a=3 1/d=2", "1/a=3 1/d=2 1/x=4", "1/a=3 1/d=2 2/y=5", "1/a=3 1/d=2 1/x=4 2/y=5"}},
		{"a sync brings what it depends on", func(s *namespace) {
			s.change(edit{root, "x", 4})
			rename(s)
			s.change(edit{root, "y", 5})
			s.sync(2)
		}, []string{"1/d=2 1/x=4 2/b=3", "1/d=2 1/x=4 1/y=5 2/b=3"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := left(c.do)
			for _, w := range c.want {
				if !got[w] {
					t.Errorf("no cut leaves %q", w)
				}
				delete(got, w)
			}
			for g := range got {
				t.Errorf("a cut leaves %q", g)
			}
		})
	}
}
