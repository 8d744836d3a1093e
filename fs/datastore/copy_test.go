package datastore

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"vmcryptfs/keys"
)

// mountCopy is mount of a copy.
func (s *site) mountCopy(pinKEK string, trust bool) error {
	st := s.open(s.host)
	if err := st.TrustCopy("", pinKEK, trust); err != nil {
		return err
	}
	return st.Verify(s.t.Context(), s.cache())
}

func (s *site) memory() string {
	b, err := os.ReadFile(filepath.Join(s.host.state, memoryName))
	if err != nil {
		s.t.Fatal(err)
	}
	return string(b)
}

// TestTrustCopy: settings of a copy may be older than the host's memory, and leave the memory
// unchanged. The seal, the KEK's check value, pins and the path count as ever.
func TestTrustCopy(t *testing.T) {
	s := newSite(t)
	old := s.read()
	set := s.settings("k2")
	set.Serial = 2
	s.seal(set, s.kek("k2"), s.kek("k1"))
	wantError(t, "the original", s.mount(s.host, false), nil)
	known := s.memory()
	s.write(old)
	wantError(t, "older settings", s.mount(s.host, false), ErrUntrusted)
	wantError(t, "older settings of a copy", s.mountCopy("", false), nil)
	wantError(t, "the same pinned", s.mountCopy("k1", false), nil)
	wantError(t, "the same with another pin", s.mountCopy("k2", true), ErrUntrusted)
	s.write([]byte(strings.Replace(string(old), "*.secret", "*.xecret", 1)))
	wantError(t, "a copy with a rule changed", s.mountCopy("", false), keys.ErrSeal)
	set.ID[0] ^= 0xff
	s.seal(set, s.kek("k2"), nil)
	wantError(t, "another datastore at a known path", s.mountCopy("", false), ErrUntrusted)
	wantError(t, "the same, trusted", s.mountCopy("", true), nil)
	if now := s.memory(); now != known {
		t.Errorf("the host remembers\n%s\nof copies, and knew\n%s", now, known)
	}
	s.write(old)
	wantError(t, "older settings, after a copy", s.mount(s.host, false), ErrUntrusted)
}

// TestTrustCopyKnowsKEK: a key under the remembered identifier with another check value is not
// the datastore's, nor a copy's.
func TestTrustCopyKnowsKEK(t *testing.T) {
	s := newSite(t)
	wantError(t, "the original", s.mount(s.host, false), nil)
	st := s.open(s.host)
	if err := st.TrustCopy("", "", false); err != nil {
		t.Fatal(err)
	}
	if check := st.KEK().Check; check == nil || *check != s.kek("k1").CheckValue() {
		t.Errorf("the KEK of a copy is checked by %v", check)
	}
}
