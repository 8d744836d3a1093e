package policy

import (
	"os"
	"slices"
	"testing"

	"vmcryptfs/layout"
)

func rebind(at, from string) Request {
	return Request{Do: DoRebind, Path: []byte(at), From: []byte(from)}
}

func TestRebindByTag(t *testing.T) {
	s := newSite(t)
	s.mkdir("vm1/sub/deep", "other")
	s.do(set("vm1", "clear"))
	s.do(set("vm1/sub", "encrypt"))
	s.do(set("other", "encrypt"))
	id := s.placeAt("vm1").ID
	if res := s.do(rebind("vm1", "")); res.Changed {
		t.Errorf("nothing was moved: %+v", res)
	}
	s.rename("vm1", "new")
	s.refused(set("new", "encrypt"), false, "policy rebind")
	l, err := List(t.Context(), *s.Config)
	s.must(err)
	if want := []Stray{{Path: "new", ID: id.String(), Place: "vm1"}}; !slices.Equal(l.Strays, want) || !l.Complete {
		t.Errorf("strays %+v, %t", l.Strays, l.Complete)
	}
	s.do(rebind("new", ""))
	if s.placeAt("new").ID != id || s.placeAt("new/sub").Policy != "encrypt" || len(s.Store.Settings().Places) != 3 {
		t.Errorf("places %+v", s.Store.Settings().Places)
	}
	s.tagged("new", true)
	if !s.listed("new").Holds {
		t.Errorf("%+v", s.listed("new"))
	}
	// A copy, whose original is still there.
	s.mkdir("copy")
	tag := []byte(layout.TagText(id))
	s.must(os.WriteFile(s.path("copy/"+layout.PlaceTag), tag, 0o644))
	s.refused(rebind("copy", ""), false, "copy of place new, which is still there")
	s.do(set("copy", "clear"))
	s.tagged("copy", true)
	// Over another place.
	s.rename("new/"+layout.PlaceTag, "other/"+layout.PlaceTag)
	s.refused(rebind("other", ""), false, "is a place already")
	s.refused(rebind("none", ""), false, "leads to no directory")
}

func TestRebindWithoutTag(t *testing.T) {
	s := newSite(t)
	s.mkdir("vm1/sub", "vm2", "open", "here")
	s.do(set("vm1", "encrypt"))
	s.do(set("vm1/sub", "encrypt"))
	s.do(set("vm2", "encrypt"))
	s.do(set("open", "clear"))
	s.refused(rebind("here", ""), false, "no place is missing")
	s.refused(rebind("here", "vm1"), false, "is where it was")
	s.refused(rebind("here", "none"), true, "none is no place")
	s.rename("vm1", "new")
	s.do(rebind("new", ""))
	s.placeAt("new/sub")
	s.rename("new", "vm1")
	s.rename("vm2", "new2")
	s.refused(rebind("vm1", ""), false, "several places lead nowhere, and vm1 may be each of them: new, vm2")
	s.do(rebind("vm1", "new"))
	s.do(rebind("new2", ""))
	s.placeAt("new2")
	// Names become clear by nothing but the tag.
	s.rename("open", "open2")
	s.must(os.Remove(s.path("open2/" + layout.PlaceTag)))
	s.refused(rebind("open2", ""), false, "no place is missing")
	s.refused(rebind("open2", "open"), false, "does not hold the tag")
}

// TestUnsetLost: a place whose directory is gone can be taken away.
func TestUnsetLost(t *testing.T) {
	s := newSite(t)
	s.clear("vm1/a-flat.vmdk")
	s.do(set("vm1", "clear"))
	s.must(os.RemoveAll(s.path("vm1")))
	s.do(Request{Do: DoUnset, Path: []byte("vm1")})
	s.mkdir("vm1")
	s.do(set("vm1", "clear"))
	s.must(os.RemoveAll(s.path("vm1")))
	s.must(os.Symlink(".", s.path("vm1")))
	s.do(Request{Do: DoUnset, Path: []byte("vm1")})
	if places := s.Store.Settings().Places; len(places) != 0 {
		t.Errorf("places %+v", places)
	}
}

// TestRebindTwoPaths: a rename through the mount that was cut off has sealed both paths.
func TestRebindTwoPaths(t *testing.T) {
	s := newSite(t)
	s.mkdir("vm1")
	s.do(set("vm1", "clear"))
	p := s.placeAt("vm1")
	s.must(s.Store.Edit(t.Context(), s.Keys, func(next *layout.Settings) error {
		p.Path = "vm2"
		next.Places = append(next.Places, p)
		return nil
	}))
	s.refused(set("vm1", "encrypt"), false, "is being renamed, from or to vm2")
	s.clear("vm1/x-flat.vmdk")
	s.refused(set("vm1/x-flat.vmdk", "encrypt"), false, "is being renamed")
	s.must(os.Remove(s.path("vm1/x-flat.vmdk")))
	s.refused(Request{Do: DoUnset, Path: []byte("vm1")}, false, "is being renamed")
	s.rename("vm1", "vm2")
	s.do(rebind("vm2", ""))
	if places := s.Store.Settings().Places; len(places) != 1 || places[0].Path != "vm2" {
		t.Errorf("places %+v", places)
	}
	s.tagged("vm2", true)
}
