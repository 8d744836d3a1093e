package rekey

import (
	"context"
	"crypto/rand"
	"errors"
	"path"
	"slices"
	"strings"
	"testing"

	"vmcryptfs/fs/cryptfile"
	"vmcryptfs/fs/wire"
	"vmcryptfs/keys"
	"vmcryptfs/layout"
)

// places seals policies and places: vm1 has a key of its own, p1 of corp; vm2 the policy "spared", whose
// key is s1 of spare; vm2/deep the datastore's.
func (s *site) places() {
	s.t.Helper()
	s.corp.do(func() { s.corp.seeds["p1"], s.corp.states["p1"] = "corpp1", keys.Active })
	must(s.t, s.store.Edit(s.t.Context(), s.cache, func(next *layout.Settings) error {
		next.Policies = []layout.Policy{
			{Name: "gold", Encrypt: true, Provider: "corp", KEK: layout.KEKOfPlace},
			{Name: "spared", Encrypt: true, Provider: "spare", KEK: "s1"},
		}
		next.Places = []layout.Place{
			{Path: "vm1", ID: keys.NewFileID(), Policy: "gold", KEK: "p1"},
			{Path: "vm2", ID: keys.NewFileID(), Policy: "spared"},
			{Path: "vm2/deep", ID: keys.NewFileID(), Policy: "encrypt"},
		}
		return nil
	}))
}

// withPlaceKeys is the site's config with a PlaceKey that seals the key want, or k2 as a new one.
func (s *site) withPlaceKeys() Config {
	c := s.config()
	c.PlaceKey = func(ctx context.Context, place layout.Place, want string) (wire.KeyName, bool, bool, error) {
		id := want
		if id == "" {
			id = "k2"
		}
		err := s.store.Edit(ctx, s.cache, func(next *layout.Settings) error {
			i := slices.IndexFunc(next.Places, func(p layout.Place) bool { return p.ID == place.ID })
			next.Places[i].KEK = id
			return nil
		})
		policy, _ := s.store.Settings().Policy(place.Policy)
		return wire.KeyName{Provider: policy.Provider, Identifier: id}, want == "", true, err
	}
	return c
}

// wantLockers compares the lockers of files, each a path and its keys.
func (s *site) wantLockers(want map[string][]string) {
	s.t.Helper()
	for rel, keys := range want {
		if got := s.lockers(rel); !slices.Equal(got, keys) {
			s.t.Errorf("%s: lockers %v, want %v", rel, got, keys)
		}
	}
}

// TestByPlace: without a key named, each file gets the KEK of its place.
func TestByPlace(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.tree()
	s.file("vm2/c.img", s.kek(s.corp, "k1"))
	s.places()
	sum := s.run(Request{Paths: []string{"."}})
	if !sum.Complete || sum.Rekeyed != 3 || sum.Already != 2 || sum.Identifier != "k1" || sum.Current {
		t.Errorf("%+v", sum)
	}
	s.wantLockers(map[string][]string{
		"vm1/a-flat.vmdk": {"corp/p1"}, "vm1/a.nvram": {"corp/p1"}, "vm2/c.img": {"corp/k1", "spare/s1"},
		"vm2/deep/er/b.qcow2": {"corp/k1"}, "c.img": {"corp/k1"},
	})
	again := s.run(Request{Paths: []string{"vm1", "vm1/a.nvram"}})
	if !again.Complete || again.Rekeyed != 0 || again.Identifier != "p1" {
		t.Errorf("again, of one place: %+v", again)
	}
}

// TestNewKeyOfDatastore: places with keys of their own keep them, also where a key is away.
func TestNewKeyOfDatastore(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.places()
	s.file("vm1/a.img", s.kek(s.corp, "p1"))
	s.file("vm2/c.img", s.kek(s.spare, "s1"))
	s.file("vm2/old.img", s.kek(s.corp, "k1"))
	s.file("d.img", s.kek(s.corp, "k1"))
	s.spare.do(func() { s.spare.fail = keys.ErrNotFound })
	sum := s.run(Request{Paths: []string{"."}, To: "k2"})
	if sum.Complete || !sum.Current || sum.Rekeyed != 1 || sum.Failed != 1 || sum.Failures[0].Path != "vm2/old.img" {
		t.Errorf("%+v", sum)
	}
	s.wantSettings("corp", "k2", 3)
	s.wantLockers(map[string][]string{"vm1/a.img": {"corp/p1"}, "vm2/c.img": {"spare/s1"}, "vm2/old.img": {"corp/k1"}, "d.img": {"corp/k2"}})
	// A second provider's locker everywhere, but where its provider has the place's own key.
	s.spare.do(func() { s.spare.fail = nil; s.spare.seeds["s2"], s.spare.states["s2"] = "spares2", keys.Active })
	s.reopen()
	if sum := s.run(Request{Paths: []string{"."}, Add: "spare", To: "s2"}); !sum.Complete || sum.Current {
		t.Errorf("one more provider: %+v", sum)
	}
	s.wantLockers(map[string][]string{
		"vm1/a.img": {"corp/p1", "spare/s2"}, "vm2/c.img": {"spare/s1"}, "vm2/old.img": {"corp/k1", "spare/s1"}, "d.img": {"corp/k2", "spare/s2"},
	})
}

// TestNewKeyOfPlace: the place's key is changed before its files, and no other file.
func TestNewKeyOfPlace(t *testing.T) {
	t.Parallel()
	for _, to := range []string{"", "k2"} {
		s := newSite(t)
		s.tree()
		s.places()
		r := Request{Paths: []string{"vm1/"}, To: to, New: to == ""}
		sum, err := Run(t.Context(), s.withPlaceKeys(), r, func(Event) error {
			if got := s.store.Settings().Places[0].KEK; got != "k2" {
				t.Errorf("a file was done while the place had %s", got)
			}
			return nil
		})
		must(t, err)
		if !sum.Complete || !sum.Current || sum.Created != (to == "") || sum.Place != "vm1" || sum.Rekeyed != 2 || sum.Identifier != "k2" {
			t.Errorf("to %q: %+v", to, sum)
		}
		s.wantLockers(map[string][]string{"vm1/a-flat.vmdk": {"corp/k2"}, "vm1/a.nvram": {"corp/k2"}, "c.img": {"corp/k1"}})
		s.wantSettings("corp", "k1", 3)
	}
}

// TestNewKeyOfPlaceAlone: the datastore's lockers go with the new key of a place at another provider.
func TestNewKeyOfPlaceAlone(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.file("vm1/a.img", s.kek(s.corp, "k1"))
	s.file("vm1/deep/b.img", s.kek(s.corp, "k2"))
	must(t, s.store.Edit(t.Context(), s.cache, func(next *layout.Settings) error {
		next.Policies = []layout.Policy{{Name: "gold", Encrypt: true, Provider: "spare", KEK: layout.KEKOfPlace}}
		next.Places = []layout.Place{
			{Path: "vm1", ID: keys.NewFileID(), Policy: "gold", KEK: "s0"},
			{Path: "vm1/deep", ID: keys.NewFileID(), Policy: "encrypt"},
		}
		return nil
	}))
	c := s.withPlaceKeys()
	sum, err := Run(t.Context(), c, Request{Paths: []string{"vm1"}, To: "s1", Drop: "corp"}, func(Event) error { return nil })
	must(t, err)
	if !sum.Complete || sum.Rekeyed != 2 || sum.KeyName != spareS1 || sum.Place != "vm1" {
		t.Errorf("%+v", sum)
	}
	s.wantLockers(map[string][]string{"vm1/a.img": {"spare/s1"}, "vm1/deep/b.img": {"corp/k1"}})
}

func TestPlaceRequests(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.places()
	for _, c := range []struct {
		name string
		r    Request
		want string
	}{
		{"a policy's provider", Request{Paths: []string{"vm1"}, Drop: "spare"}, `policy "spared" are at provider "spare"`},
		{"a place's provider", Request{Paths: []string{"."}, Add: "spare", Drop: "corp"}, `policy "gold" are at provider "corp"`},
		{"with a place's new key", Request{Paths: []string{"vm1"}, New: true, Drop: "spare"}, `policy "spared"`},
		{"several", Request{Paths: []string{"vm1", "vm2"}, New: true}, "vm1 is a place with a key of its own"},
		{"both keys", Request{Paths: []string{"vm1"}, New: true, To: "k2"}, "exclude one another"},
	} {
		_, err := Run(t.Context(), s.withPlaceKeys(), c.r, func(Event) error { return nil })
		if !errors.Is(err, wire.ErrRequest) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
	s.wantSettings("corp", "k1", 2)
}

// TestCompanions: a companion of a move is a file of its own, with its mark and without.
func TestCompanions(t *testing.T) {
	t.Parallel()
	for _, named := range []string{"vm1", "vm1/a.img"} {
		s := newSite(t)
		k1, k2 := s.kek(s.corp, "k1"), s.kek(s.corp, "k2")
		var id layout.FileID
		rand.Read(id[:])
		id[6], id[8] = id[6]&0x0f|0x40, id[8]&0x3f|0x80
		companion := path.Join("vm1", layout.MoveName(id))
		s.file("vm1/a.img", k1)
		s.file(companion, k1)
		s.mark("vm1/a.img", k1, id)
		v, err := TakeInventory(t.Context(), s.store.Fd(), true)
		must(t, err)
		if use := v.Uses[corpK1]; use == nil || !slices.Equal(use.Paths, []string{companion, "vm1/a.img"}) {
			t.Errorf("inventory %+v", use)
		}
		if sum := s.run(Request{Paths: []string{named}, To: "k2"}); !sum.Complete || sum.Rekeyed != 2 || sum.Files != 2 {
			t.Errorf("rekey %s: %+v", named, sum)
		}
		s.wantLockers(map[string][]string{"vm1/a.img": {"corp/k2"}, companion: {"corp/k2"}})
		if got := s.slots("vm1/a.img").Header.Mark; got != id {
			t.Errorf("mark %v, want %v", got, id)
		}
		s.opens(companion, k2)
	}
}

// mark marks rel, which kek opens, as the carrier of the move id.
func (s *site) mark(rel string, kek *keys.KEK, id layout.FileID) {
	s.t.Helper()
	slots := s.slots(rel)
	dek, err := unwrap(slots.Header, kek)
	must(s.t, err)
	defer dek.Wipe()
	h := *slots.Header
	h.Mark = id
	must(s.t, cryptfile.UpdateHeader(s.backingFile(rel), slots, &h, dek))
}
