package layout

import "testing"

func examplePlaces(t *testing.T) *Places {
	t.Helper()
	s := exampleSettings()
	s.Encrypt, s.Clear = []string{"*.secret"}, []string{"*.iso"}
	s.Policies = []Policy{{Name: "gold", Encrypt: true, KEK: "77"}, {Name: "scratch"}}
	s.Places = []Place{
		{Path: "a", ID: placeID(1), Policy: "gold", Encrypt: []string{"*.log"}, Clear: []string{"*_2-flat.vmdk", "*.both"}},
		{Path: "a/b/c", ID: placeID(2), Policy: "scratch", Encrypt: []string{"*_0-flat.vmdk", "*.both"}, Clear: []string{"*.both"}},
	}
	if err := s.Check(); err != nil {
		t.Fatal(err)
	}
	p, err := NewPlaces(&s)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestPlacesOver(t *testing.T) {
	p := examplePlaces(t)
	for dir, want := range map[string]string{
		".": "", "b": "", "a": "a", "a/b": "a", "a/b/c": "a", "a/b/c/d": "a", "ab": "", "x/a": "",
	} {
		got := ""
		if a := p.Over(dir); a != nil {
			got = a.Place.Path
		}
		if got != want {
			t.Errorf("over %s: %q, want %q", dir, got, want)
		}
	}
	var none *Places
	if none.Over("a") != nil || none.At("a") != nil || none.Any() {
		t.Error("no places, and one is found")
	}
}

func TestPlacesAnywhere(t *testing.T) {
	p := examplePlaces(t)
	for name, want := range map[string]Class{
		"x_2-flat.vmdk": Encrypt, // clear in a
		"x.img":         Encrypt, // clear in a/b/c
		"vmware.log":    Encrypt, // encrypted in a
		"x.vmx":         Clear,
		"x.iso":         Clear, // by the settings, which go before
		"x.vmdk":        Inspect,
		"x.vmx.secret":  Encrypt,
	} {
		if got := p.Anywhere(name).Class; got != want {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
	var none *Places
	if v := none.Anywhere("vmware.log"); v.Class != Clear || none.Adopting() != 0 || p.Adopting() != 0 {
		t.Errorf("without places: %v", v)
	}
}

func TestPlacesClassify(t *testing.T) {
	p := examplePlaces(t)
	for _, c := range []struct {
		dir, name string
		tagged    Class // with the tag
		untagged  Class
		policy    string // with the tag
	}{
		{"", "x-flat.vmdk", Encrypt, Encrypt, ""},
		{"", "vmware.log", Clear, Clear, ""},
		{"a", "x-flat.vmdk", Encrypt, Encrypt, ""},
		{"a", "x_2-flat.vmdk", Clear, Encrypt, "gold"},
		{"a", "x_2-flat.vmdk~", Clear, Encrypt, "gold"},
		{"a", "x.vmx", Clear, Clear, ""},
		{"a", "vmware.log", Encrypt, Encrypt, "gold"},
		{"a", "vmware.log.1", Clear, Clear, ""}, // as with a glob of the settings
		{"a", "x.iso", Clear, Clear, ""},        // the settings go first
		{"a", "x_2-flat.vmdk.secret", Encrypt, Encrypt, ""},
		{"a/b/c", "x-flat.vmdk", Clear, Encrypt, "scratch"},
		{"a/b/c", "x_0-flat.vmdk", Encrypt, Encrypt, "scratch"},
		{"a/b/c", "x.vmdk", Clear, Inspect, "scratch"},
		{"a/b/c", "x.vmem", Clear, Encrypt, "scratch"},
		{"a/b/c", "x.unheard", Clear, Encrypt, "scratch"},
		{"a/b/c", "core.5", Encrypt, Encrypt, ""},
		{"a/b/c", "unattend.xml", Encrypt, Encrypt, ""}, // rule 1
		{"a/b/c", "x.both", Encrypt, Encrypt, "scratch"},
		{"a/b/c", "x.secret", Encrypt, Encrypt, ""},
	} {
		a := p.At(c.dir)
		if v := p.Classify(c.name, a, true); v.Class != c.tagged || v.Policy != c.policy {
			t.Errorf("%s in %q with its tag: %v by policy %q, want %v by %q", c.name, c.dir, v.Class, v.Policy, c.tagged, c.policy)
		}
		if v := p.Classify(c.name, a, false); v.Class != c.untagged {
			t.Errorf("%s in %q without its tag: %v, want %v", c.name, c.dir, v.Class, c.untagged)
		}
	}
	var none *Places
	if v := none.Classify("x.img", nil, true); v.Class != Encrypt || v.Rule != 5 {
		t.Errorf("no places: %+v", v)
	}
}
