package policy

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"vmcryptfs/keys"
	"vmcryptfs/layout"
)

func TestDefine(t *testing.T) {
	s := newSite(t)
	s.do(define("own", "vm"))
	s.do(define("k", "k2"))
	s.do(define("plain", layout.KEKOfDatastore))
	r := define("spare", "s1")
	r.Provider = "spare"
	s.do(r)
	s.do(Request{Do: DoDefine, Name: "open"})
	for _, want := range []layout.Policy{
		{Name: "own", Encrypt: true, Provider: "corp", KEK: "vm"}, {Name: "k", Encrypt: true, Provider: "corp", KEK: "k2"},
		{Name: "plain", Encrypt: true}, {Name: "spare", Encrypt: true, Provider: "spare", KEK: "s1"}, {Name: "open"},
	} {
		if got, ok := s.Store.Settings().Policy(want.Name); !ok || got != want {
			t.Errorf("policy %+v, want %+v", got, want)
		}
	}
	l, err := List(t.Context(), *s.Config)
	s.must(err)
	if len(l.Policies) != 7 || !l.Policies[0].BuiltIn || l.Policies[3].KEK != "k2" || !l.Verified {
		t.Errorf("list %+v", l)
	}
	s.refused(define("clear", ""), true, "built in")
	s.refused(define("x", "lost"), false, `key "lost"`)
	s.refused(define("x", "old"), false, `key "old"`)
	s.refused(Request{Do: DoDefine, Name: "x", KEK: "k2"}, true, "does not encrypt")
	s.refused(Request{Do: DoDefine, Name: "x", Encrypt: true, Provider: "spare"}, true, "takes the datastore's KEK")
	s.refused(Request{Do: DoDefine, Name: "x", Encrypt: true, KEK: "vm", Provider: "away"}, true, "not configured")
	s.refused(define(strings.Repeat("x", 65), ""), true, "65 characters")
	s.refused(Request{Do: DoDefine}, true, "no policy is named")
}

// TestRedefine: the places of a policy get what they need by its new meaning.
func TestRedefine(t *testing.T) {
	s := newSite(t)
	s.clear("vm1/a-flat.vmdk")
	s.mkdir("vm2")
	open := Request{Do: DoDefine, Name: "p"}
	s.do(open)
	s.do(set("vm1", "p"))
	s.do(set("vm2", "p"))
	s.tagged("vm1", true)
	res := s.do(define("p", "vm"))
	one, two := s.placeAt("vm1"), s.placeAt("vm2")
	if one.KEK == "" || two.KEK == "" || one.KEK == two.KEK || !one.Adopt || two.Adopt {
		t.Errorf("places %+v, %+v", one, two)
	}
	if len(res.Places) != 2 || !res.Places[0].Created {
		t.Errorf("result %+v", res)
	}
	s.tagged("vm1", false)
	s.tagged("vm2", false)
}

// TestRedefineProvider: another provider has no key of the places' identifiers.
func TestRedefineProvider(t *testing.T) {
	s := newSite(t)
	s.mkdir("vm1", "vm2")
	s.do(define("p", "vm"))
	s.do(set("vm1", "p"))
	s.do(set("vm2", "p"))
	r := define("p", "vm")
	r.Provider = "spare"
	s.do(r)
	if l := s.listed("vm1"); l.KEK.Provider != "spare" || !l.Holds || len(s.spare.made) != 2 {
		t.Errorf("%+v, keys %v", l, s.spare.made)
	}
	s.spare.mu.Lock()
	s.spare.states[s.placeAt("vm1").KEK] = keys.Deactivated
	delete(s.spare.states, s.placeAt("vm2").KEK)
	s.spare.mu.Unlock()
	if l := s.listed("vm1"); !strings.Contains(l.Why, "deactivated") || !l.Holds {
		t.Errorf("%+v", l)
	}
	if l := s.listed("vm2"); !strings.Contains(l.Why, "does not know") {
		t.Errorf("%+v", l)
	}
	open := Request{Do: DoDefine, Name: "p"}
	s.do(open)
	if s.placeAt("vm1").KEK != "" {
		t.Errorf("place %+v", s.placeAt("vm1"))
	}
	s.tagged("vm1", true)
	// A key server that is away: nothing is changed.
	s.corp.fail = unix.EIO
	s.refused(define("p", "vm"), false, "place vm1: make a key")
	if s.rename("vm2", "gone"); s.listed("vm2").Holds {
		t.Errorf("%+v", s.listed("vm2"))
	}
	s.do(define("p", ""))
	s.do(open) // a place that leads nowhere hinders nothing
}

func TestRemove(t *testing.T) {
	s := newSite(t)
	s.mkdir("vm0", "vm1", "vm2", "vm3", "vm4", "vm5", "vm6")
	s.do(define("gold", ""))
	for i := range 7 {
		s.do(set(fmt.Sprintf("vm%d", i), "gold"))
	}
	remove := Request{Do: DoRemove, Name: "gold"}
	s.refused(remove, false, "policy of vm0, vm1, vm2, vm3, vm4 and 2 more")
	for i := range 7 {
		s.do(set(fmt.Sprintf("vm%d", i), "encrypt"))
	}
	s.do(remove)
	s.refused(remove, true, `no policy "gold"`)
	s.refused(Request{Do: DoRemove, Name: "encrypt"}, true, "built in")
}

// TestAtOnce: of many requests at once none is lost.
func TestAtOnce(t *testing.T) {
	s := newSite(t)
	s.TakeUp = nil
	s.do(define("gold", "vm"))
	var wg sync.WaitGroup
	for i := range 8 {
		s.mkdir(fmt.Sprintf("vm%d", i))
		wg.Go(func() {
			name := []string{"clear", "encrypt", "gold"}[i%3]
			if _, err := Do(t.Context(), *s.Config, set(fmt.Sprintf("vm%d", i), name)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	l, err := List(t.Context(), *s.Config)
	s.must(err)
	if len(l.Places) != 8 {
		t.Errorf("places %+v", l.Places)
	}
	for _, p := range l.Places {
		if !p.Holds || (p.Policy == "gold") != (p.KEK != nil) {
			t.Errorf("place %+v", p)
		}
	}
}
