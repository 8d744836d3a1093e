package fs

import (
	"errors"
	"maps"
	"testing"

	"golang.org/x/sys/unix"

	"vmcryptfs/layout"
)

func TestRelocation(t *testing.T) {
	r := relocation{"a/b", "x"}
	for p, want := range map[string]string{"a/b": "x", "a/b/c": "x/c", "a/bc": "", "a": "", ".": "", "b": "", "x": "", "c/a/b": ""} {
		if got, moved := r.of(p); got != want || moved != (want != "") {
			t.Errorf("%s becomes %q, %v, want %q", p, got, moved, want)
		}
	}
}

// TestPlaceMove: begin and then undo leave the settings as they were, and begin and then end leave the new paths.
func TestPlaceMove(t *testing.T) {
	both := func(a, b string) []relocation { return []relocation{{a, b}, {b, a}} }
	for what, c := range map[string]struct {
		places []layout.Place
		rename []relocation
		want   map[string]byte
		err    error
	}{
		"one":           {[]layout.Place{at(1, "a", "clear"), at(2, "b", "clear")}, []relocation{{"a", "c"}}, map[string]byte{"c": 1, "b": 2}, nil},
		"below":         {[]layout.Place{at(1, "a/x", "clear"), at(2, "a/x/y", "clear")}, []relocation{{"a", "b/c"}}, map[string]byte{"b/c/x": 1, "b/c/x/y": 2}, nil},
		"to a stale":    {[]layout.Place{at(1, "a", "clear"), at(2, "b", "clear")}, []relocation{{"a", "b"}}, map[string]byte{"b": 1}, nil},
		"exchange":      {[]layout.Place{at(1, "a", "clear"), at(2, "b/x", "clear")}, both("a", "b"), map[string]byte{"b": 1, "a/x": 2}, nil},
		"crossing":      {[]layout.Place{at(1, "a/x", "clear"), at(2, "b/x", "clear")}, both("a", "b"), nil, unix.EXDEV},
		"double":        {[]layout.Place{at(1, "a", "clear"), at(1, "b", "clear")}, []relocation{{"a", "c"}}, nil, unix.EBUSY},
		"no place":      {[]layout.Place{at(1, "a", "clear")}, []relocation{{"a", "\xff"}}, nil, unix.EINVAL},
		"reserved name": {[]layout.Place{at(1, "a", "clear")}, []relocation{{"a", layout.ReservedPrefix}}, nil, unix.EINVAL},
	} {
		s := layout.Settings{Format: 1, ID: at(9, "", "").ID, Provider: "test", KEK: testKEK, Serial: 1, Places: c.places}
		m := &placeMove{rename: c.rename}
		sealed := s.Clone()
		err := m.begin(&sealed)
		if !errors.Is(err, c.err) {
			t.Errorf("%s: %v, want %v", what, err, c.err)
		}
		if err != nil {
			sealed = s.Clone() // as Edit does
		}
		back := sealed.Clone()
		if err := m.undo(&back); err != nil || !samePaths(&back, pathsOf(&s)) {
			t.Errorf("%s: undone: %v, %v", what, back.Places, err)
		}
		if err := m.end(&sealed); c.err == nil && (err != nil || !samePaths(&sealed, c.want)) {
			t.Errorf("%s: ended: %v, %v", what, sealed.Places, err)
		}
	}
}

func pathsOf(s *layout.Settings) map[string]byte {
	paths := map[string]byte{}
	for _, p := range s.Places {
		paths[p.Path] = p.ID[15]
	}
	return paths
}

func samePaths(s *layout.Settings, want map[string]byte) bool {
	return s.Check() == nil && maps.Equal(pathsOf(s), want)
}
