package policy

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"vmcryptfs/fs/wire"
)

// TestKeys: the keys of policies and of places, but not the datastore's.
func TestKeys(t *testing.T) {
	s := newSite(t)
	s.mkdir("vm1", "vm2", "vm3")
	s.do(define("gold", "vm"))
	fixed := define("fixed", "s1")
	fixed.Provider = "spare"
	s.do(fixed)
	s.do(set("vm1", "gold"))
	s.do(set("vm2", "fixed"))
	s.do(set("vm3", "encrypt"))
	want := []NamedKey{
		{wire.KeyName{Provider: "spare", Identifier: "s1"}, "policy fixed"},
		{wire.KeyName{Provider: "corp", Identifier: "made0"}, "place vm1"},
	}
	if diff := cmp.Diff(want, Keys(s.Store.Settings())); diff != "" {
		t.Errorf("keys (-want +got):\n%s", diff)
	}
}
