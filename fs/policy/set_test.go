package policy

import (
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"vmcryptfs/layout"
)

func TestSetDirectory(t *testing.T) {
	s := newSite(t)
	s.mkdir("vm1")
	s.do(define("gold", "vm"))
	res := s.do(set("vm1", "gold"))
	p := s.placeAt("vm1")
	if p.Policy != "gold" || p.KEK != "made0" || p.Adopt || p.ID[6]>>4 != 4 {
		t.Errorf("place %+v", p)
	}
	if len(res.Places) != 1 || !res.Places[0].Created || res.Places[0].KEK.Provider != "corp" || !res.Changed {
		t.Errorf("result %+v", res)
	}
	if want := p.ID.String() + ".3"; !slices.Equal(s.corp.made, []string{want}) {
		t.Errorf("keys %v, want %s", s.corp.made, want)
	}
	s.tagged("vm1", false)
	if s.taken == 0 {
		t.Error("the settings were not taken up")
	}
	// The same again makes no key and changes nothing.
	serial := s.Store.Settings().Serial
	if res := s.do(set("vm1", "gold")); res.Changed || len(s.corp.made) != 1 || s.Store.Settings().Serial != serial {
		t.Errorf("again: %+v, keys %v", res, s.corp.made)
	}
}

// TestSetAgain: a place keeps its id, whatever its policy and its key.
func TestSetAgain(t *testing.T) {
	s := newSite(t)
	s.mkdir("vm1")
	s.do(define("gold", "vm"))
	s.do(set("vm1", "gold"))
	p := s.placeAt("vm1")
	r := set("vm1", "gold")
	r.KEK = KeyNew
	s.do(r)
	if got := s.placeAt("vm1"); got.KEK != "made1" || got.ID != p.ID {
		t.Errorf("with a new key: %+v", got)
	}
	r.KEK = "k2"
	s.do(r)
	if got := s.placeAt("vm1").KEK; got != "k2" {
		t.Errorf("with key k2: %q", got)
	}
	s.do(set("vm1", "encrypt"))
	if got := s.placeAt("vm1"); got.KEK != "" || got.ID != p.ID {
		t.Errorf("without a key: %+v", got)
	}
	s.do(Request{Do: DoUnset, Path: []byte("vm1")})
	if len(s.Store.Settings().Places) != 0 {
		t.Errorf("places %+v", s.Store.Settings().Places)
	}
}

func TestSetRefuses(t *testing.T) {
	s := newSite(t)
	s.mkdir("vm1", "vm2")
	s.do(define("gold", "vm"))
	s.must(os.Symlink("vm1", s.path("link")))
	s.must(unix.Mkfifo(s.path("pipe"), 0o644))
	s.refused(set("vm1", "silver"), true, `no policy "silver"`)
	s.refused(set("none", "clear"), false, "no such file")
	s.refused(set("link", "clear"), true, "neither a directory nor a regular file")
	s.refused(set("link/x", "clear"), false, "leads to no directory")
	s.refused(set("pipe", "clear"), true, "neither a directory nor a regular file")
	s.refused(set("../x", "clear"), true, "not one below BACKING")
	s.refused(set("/vm1", "clear"), true, "not one below BACKING")
	s.refused(set("vm\xff", "clear"), true, "not UTF-8")
	s.refused(set(".vmcryptfs", "clear"), true, "belongs to vmcryptfs")
	s.refused(Request{Do: "x", Path: []byte("vm1")}, true, "no change of policies")
	s.refused(Request{Do: DoSet, Path: []byte("vm1")}, true, "no policy is named")
	for _, c := range []struct {
		name, policy, kek, provider, words string
		request                            bool
	}{
		{"a key that is none", "gold", "lost", "", `key "lost"`, false},
		{"a key that wraps no more", "gold", "old", "", `key "old"`, false},
		{"a key where none goes", "clear", KeyNew, "", "no place a KEK of its own", true},
		{"another provider", "gold", "", "spare", "--provider spare", true},
	} {
		r := set("vm1", c.policy)
		r.KEK, r.Provider = c.kek, c.provider
		s.refused(r, c.request, c.words)
	}
	s.corp.fail = unix.EIO
	s.refused(set("vm1", "gold"), false, "make a key")
	s.refused(Request{Do: DoUnset, Path: []byte("vm1")}, false, "is no place")
}

// TestKeyMadeInVain: the key of a change that is not sealed is named.
func TestKeyMadeInVain(t *testing.T) {
	s := newSite(t)
	s.mkdir("vm1")
	s.do(define("gold", "vm"))
	s.must(os.WriteFile(s.path(".vmcryptfs/datastore.toml"), []byte("#\n"), 0o644))
	s.refused(set("vm1", "gold"), false, `(key "made0" of provider "corp" was made and is not used yet)`)
}

func TestTags(t *testing.T) {
	s := newSite(t)
	s.mkdir("vm1/sub")
	s.do(set("vm1", "clear"))
	s.tagged("vm1", true)
	s.tagged("vm1/sub", false)
	info, err := os.Stat(s.path("vm1/" + layout.PlaceTag))
	s.must(err)
	if info.Mode() != 0o644 || info.Size() != tagSize {
		t.Errorf("tag: mode %v, %d bytes", info.Mode(), info.Size())
	}
	if !s.listed("vm1").Holds {
		t.Errorf("%+v", s.listed("vm1"))
	}
	s.must(os.Remove(s.path("vm1/" + layout.PlaceTag)))
	if p := s.listed("vm1"); p.Holds || !strings.Contains(p.Why, "no tag") {
		t.Errorf("%+v", p)
	}
	s.must(os.WriteFile(s.path("vm1/"+layout.PlaceTag), []byte(layout.TagText(layout.FileID{1})), 0o644))
	if p := s.listed("vm1"); p.Holds || !strings.Contains(p.Why, "another place") {
		t.Errorf("%+v", p)
	}
	// A tag of nobody's stays nobody's: the place does not take it away.
	s.do(set("vm1", "encrypt"))
	s.do(set("vm1", "clear"))
	s.tagged("vm1", true)
	s.do(set("vm1", "encrypt"))
	s.tagged("vm1", false)
	s.do(set("vm1", "clear"))
	s.do(Request{Do: DoUnset, Path: []byte("vm1")})
	s.tagged("vm1", false)
	s.do(set(".", "clear"))
	s.tagged(".", true)
}

func TestAdopt(t *testing.T) {
	s := newSite(t)
	s.clear("vm1/a-flat.vmdk")
	s.clear("vm2/a.log")
	s.do(set("vm1", "clear"))
	s.refused(Request{Do: DoUnset, Path: []byte("vm1")}, false, "lie in clear")
	s.do(set("vm1", "encrypt"))
	if !s.placeAt("vm1").Adopt {
		t.Error("a disk in clear is not adopted")
	}
	s.do(set("vm1", "clear")) // in clear by right again
	if s.placeAt("vm1").Adopt {
		t.Error("a place adopts what is clear by right")
	}
	s.do(set("vm2", "encrypt"))
	if s.placeAt("vm2").Adopt {
		t.Error("a log is adopted")
	}
	// What came there since, and the same request again.
	s.clear("vm2/sub/b.nvram")
	s.do(set("vm2", "encrypt"))
	if !s.placeAt("vm2").Adopt {
		t.Error("NVRAM that was copied in is not adopted")
	}
	// Below a place of its own it is not the outer one's.
	s.do(set("vm2/sub", "encrypt"))
	s.do(set("vm2", "encrypt"))
	if s.placeAt("vm2").Adopt || !s.placeAt("vm2/sub").Adopt {
		t.Errorf("places %+v", s.Store.Settings().Places)
	}
	// A place in clear inside is served by the outer one, as far as it does not make names clear.
	s.clear("vm2/open/vmx-zdump.000")
	s.do(set("vm2/open", "clear"))
	s.do(set("vm2", "encrypt"))
	if !s.placeAt("vm2").Adopt {
		t.Error("a core dump in clear is not adopted")
	}
	// Where there is no time to look, what lies there is served.
	s.Look = 1
	s.mkdir("vm3")
	s.do(set("vm3", "encrypt"))
	if !s.placeAt("vm3").Adopt {
		t.Error("a place that was not looked through does not adopt")
	}
}

func TestSetDisk(t *testing.T) {
	s := newSite(t)
	s.clear("vm1/a_2-flat.vmdk")
	s.clear("vm1/b[1]*-flat.vmdk")
	s.do(set("vm1/a_2-flat.vmdk", "clear"))
	p := s.placeAt("vm1")
	if p.Policy != "encrypt" || !slices.Equal(p.Clear, []string{"a_2-flat.vmdk"}) || p.Encrypt != nil {
		t.Errorf("place %+v", p)
	}
	if !p.Adopt {
		t.Error("the other disk, in clear, is not adopted")
	}
	s.tagged("vm1", true)
	s.do(set("vm1/b[1]*-flat.vmdk", "clear"))
	if p := s.placeAt("vm1"); !slices.Equal(p.Clear, []string{"a_2-flat.vmdk", `b\[1]\*-flat.vmdk`}) || p.Adopt {
		t.Errorf("place %+v", p)
	}
	s.do(set("vm1/a_2-flat.vmdk", "encrypt"))
	s.do(set("vm1/b[1]*-flat.vmdk", "encrypt"))
	p = s.placeAt("vm1")
	if len(p.Clear) != 0 || len(p.Encrypt) != 2 || !p.Adopt {
		t.Errorf("place %+v", p)
	}
	s.tagged("vm1", false)
	// The reverse: a clear place with a disk that is encrypted.
	s.clear("vm2/c-flat.vmdk")
	s.do(set("vm2", "clear"))
	s.do(set("vm2/c-flat.vmdk", "encrypt"))
	if p := s.placeAt("vm2"); p.Policy != "clear" || !slices.Equal(p.Encrypt, []string{"c-flat.vmdk"}) || !p.Adopt {
		t.Errorf("place %+v", p)
	}
	s.tagged("vm2", true)
}

// TestSetDiskPlace: a directory that becomes a place for a disk has the key of the place above.
func TestSetDiskPlace(t *testing.T) {
	s := newSite(t)
	s.clear("all/vm1/a-flat.vmdk")
	s.do(define("gold", "vm"))
	s.do(define("k", "k2"))
	s.do(set("all", "gold"))
	s.do(set("all/vm1/a-flat.vmdk", "clear"))
	if p := s.placeAt("all/vm1"); p.Policy != "gold" || p.KEK != "made0" || len(s.corp.made) != 1 {
		t.Errorf("place %+v, keys %v", p, s.corp.made)
	}
	s.do(set("all/vm1/a-flat.vmdk", "gold"))
	s.refused(set("all/vm1/a-flat.vmdk", "k"), true, `whose policy is "gold"`)
	r := set("all/vm1/a-flat.vmdk", "encrypt")
	r.KEK = KeyNew
	s.refused(r, true, "gets the KEK of its place")
	s.clear("all/vm1/a-flat.vmdk.bak")
	s.refused(set("all/vm1/a-flat.vmdk.bak", "clear"), false, "a-flat.vmdk")
}

// TestHostileTag: whoever may write the directory can put anything at the tag's name.
func TestHostileTag(t *testing.T) {
	s := newSite(t)
	s.mkdir("vm1", "vm2", "vm3", "vm4")
	target := s.path("target")
	s.must(os.WriteFile(target, []byte("x"), 0o600))
	s.must(os.Symlink(target, s.path("vm1/"+layout.PlaceTag)))
	s.must(os.Symlink(target, s.path("vm1/"+layout.PlaceTag+".new")))
	s.must(unix.Mkfifo(s.path("vm2/"+layout.PlaceTag), 0o644))
	s.must(os.WriteFile(s.path("vm3/"+layout.PlaceTag), make([]byte, 1<<20), 0o644))
	for _, at := range []string{"vm1", "vm2", "vm3"} {
		s.do(set(at, "clear"))
		s.tagged(at, true)
	}
	if b, err := os.ReadFile(target); err != nil || string(b) != "x" {
		t.Errorf("another file was written: %q, %v", b, err)
	}
	// Without its tag no place is sealed.
	s.mkdir("vm4/" + layout.PlaceTag)
	s.refused(set("vm4", "clear"), false, "tag of place vm4")
}
