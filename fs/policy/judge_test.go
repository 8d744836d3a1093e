package policy

import (
	"path"
	"testing"

	"golang.org/x/sys/unix"

	"vmcryptfs/layout"
)

// TestJudge: the place that governs a name, its class and KEK. An open directory gives the same class.
func TestJudge(t *testing.T) {
	s := newSite(t)
	s.mkdir("vm1/deep", "vm1/open", "lost")
	s.do(define("gold", "vm"))
	for _, at := range []struct{ path, name string }{{"vm1", "gold"}, {"vm1/open", "clear"}, {"lost", "clear"}} {
		s.do(set(at.path, at.name))
	}
	s.clear("vm1/a.img")
	s.do(set("vm1", "gold"))
	s.must(unix.Unlink(s.path("lost/" + layout.PlaceTag)))
	for _, c := range []struct {
		at, place string
		class     layout.Class
		holds     bool
		adopts    bool
		kek       string
	}{
		{"a.img", "", layout.Encrypt, true, false, "k1"},
		{"vm1/a.img", "vm1", layout.Encrypt, true, true, "made0"},
		{"vm1/deep/a.log", "vm1", layout.Clear, true, true, "made0"},
		{"vm1/open/a.img", "vm1/open", layout.Clear, true, true, "made0"},
		{"lost/a.img", "lost", layout.Encrypt, false, false, "k1"},
		{"none/a.img", "", layout.Encrypt, true, false, "k1"},
	} {
		j, err := Judge(s.Store, c.at)
		s.must(err)
		place := ""
		if j.Place != nil {
			place = j.Place.Place.Path
		}
		if place != c.place || j.Class != c.class || (j.Lacks == "") != c.holds || j.Adopts != c.adopts || j.KEK.Identifier != c.kek {
			t.Errorf("%s: %+v, want %+v", c.at, j, c)
		}
		s.classifiedIn(c.at, c.class)
	}
	list, more, err := Lacking(s.Store, 2)
	if err != nil || more || len(list) != 1 || list[0].Path != "lost" || list[0].Why == "" {
		t.Errorf("lacking: %+v, %v, %v", list, more, err)
	}
}

// classifiedIn checks the class of the name at a path by its open directory, if there is one.
func (s *site) classifiedIn(at string, want layout.Class) {
	s.t.Helper()
	dir, err := s.openDirectory(path.Dir(at))
	if err != nil {
		return
	}
	defer unix.Close(dir)
	places, err := layout.NewPlaces(s.Store.Settings())
	s.must(err)
	v, err := ClassifyIn(places, dir, path.Dir(at), path.Base(at))
	if err != nil || v.Class != want {
		s.t.Errorf("%s in its directory: %v, %v, want %v", at, v.Class, err, want)
	}
}
