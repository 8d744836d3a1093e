package scan

import (
	"fmt"
	"strings"
	"testing"

	"vmcryptfs/keys"
	"vmcryptfs/layout"
)

// TestKeys: files under keys that are unknown, destroyed, or of a provider that is not configured; each
// key is asked for once.
func TestKeys(t *testing.T) {
	t.Parallel()
	s := newSite(t, layout.Settings{})
	s.encrypted("a-flat.vmdk", headerOf("nobodys"))
	s.encrypted("b-flat.vmdk", headerOf("nobodys", "k1"))
	s.encrypted("c-flat.vmdk", headerOf("gone"))
	s.encrypted("d-flat.vmdk", headerOf("old"))
	s.encrypted("e-flat.vmdk", headerOf())
	away := headerOf("k1")
	away.Lockers[0].Provider = "away"
	s.encrypted("f-flat.vmdk", away)
	r := s.finds("key a-flat.vmdk", "key b-flat.vmdk", "key c-flat.vmdk", "key e-flat.vmdk", "key f-flat.vmdk")
	for i, want := range []string{"no other key opens", "another of the file's keys may", "destroyed", "names no key", "not configured"} {
		if !strings.Contains(r.Findings[i].Why, want) {
			t.Errorf("%s: %s, want %q", r.Findings[i].Path, r.Findings[i].Why, want)
		}
	}
	for id, n := range s.corp.asked {
		if n != 1 {
			t.Errorf("key %s was asked for %d times", id, n)
		}
	}
}

// TestSilent: a provider that does not answer is not asked again, and the report is not complete.
func TestSilent(t *testing.T) {
	t.Parallel()
	s := newSite(t, layout.Settings{})
	s.must(s.Store.Verify(t.Context(), s.Keys))
	s.corp.fail = keys.ErrUnreachable
	for i := range 5 {
		s.encrypted(fmt.Sprintf("%d-flat.vmdk", i), headerOf(fmt.Sprintf("key%d", i)))
	}
	if r := s.finds(); r.Complete || len(r.Notes) != 1 || !strings.Contains(r.Notes[0], "5 keys") {
		t.Errorf("%+v", r)
	}
	if len(s.corp.asked) != 1 {
		t.Errorf("asked for %v", s.corp.asked)
	}
}

// TestManyKeys: headers that name keys without end lead to a bounded number of questions.
func TestManyKeys(t *testing.T) {
	t.Parallel()
	s := newSite(t, layout.Settings{})
	a := newAsker(s.Keys)
	for i := range mostKeys + 10 {
		a.lacks(t.Context(), headerOf(fmt.Sprint(i)))
	}
	if len(s.corp.asked) != mostKeys || len(a.answers) != mostKeys || a.missed != 10 {
		t.Errorf("%d questions, %d answers, %d missed", len(s.corp.asked), len(a.answers), a.missed)
	}
}
