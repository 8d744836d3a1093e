package datastore

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"vmcryptfs/keys"
	"vmcryptfs/layout"
)

// Attempts of an attacker with access to BACKING, at a host that knows the datastore and at a new
// host. All changed settings are well-formed.
func TestSettingsReplaced(t *testing.T) {
	other := layout.FileID{0: 0xee, 6: 0x40, 8: 0x80}
	for _, c := range []struct {
		name       string
		attack     func(s *site)
		known      error // at the host with a memory; nil: mounts
		unknown    error // at another host
		trusted    error // with --trust, at the host with a memory
		unverified bool  // the refusal needs no KMS
	}{
		{
			name:   "nothing",
			attack: func(*site) {},
		}, {
			name:   "sealed by an invented key under the KEK's name",
			attack: func(s *site) { s.seal(s.settings("k1"), invented(s, "k1"), nil) },
			known:  keys.ErrSeal, unknown: keys.ErrSeal, trusted: keys.ErrSeal,
		}, {
			name: "a rule changed",
			attack: func(s *site) {
				s.write([]byte(strings.Replace(string(s.read()), "*.secret", "*.xecret", 1)))
			},
			known: keys.ErrSeal, unknown: keys.ErrSeal, trusted: keys.ErrSeal,
		}, {
			name:   "another KEK of the same KMS, no mac_previous",
			attack: func(s *site) { set := s.settings("k2"); set.Serial = 2; s.seal(set, s.kek("k2"), nil) },
			known:  ErrUntrusted, unverified: true,
		}, {
			name: "another KEK, mac_previous invented",
			attack: func(s *site) {
				set := s.settings("k2")
				set.Serial = 2
				s.seal(set, s.kek("k2"), invented(s, "k1"))
			},
			known: ErrUntrusted,
		}, {
			name:   "another KEK, vouched for by the known one",
			attack: func(s *site) { set := s.settings("k2"); set.Serial = 2; s.seal(set, s.kek("k2"), s.kek("k1")) },
		}, {
			name:   "another KEK, vouched for, no greater serial",
			attack: func(s *site) { s.seal(s.settings("k2"), s.kek("k2"), s.kek("k1")) },
			known:  ErrUntrusted, unverified: true,
		}, {
			name: "vouched for by the known KEK, current seal invented",
			attack: func(s *site) {
				set := s.settings("k2")
				set.Serial = 2
				s.seal(set, invented(s, "k2"), s.kek("k1"))
			},
			known: keys.ErrSeal, unknown: keys.ErrSeal, trusted: keys.ErrSeal,
		}, {
			name:   "another datastore's settings",
			attack: func(s *site) { set := s.settings("k1"); set.ID = other; s.seal(set, s.kek("k1"), nil) },
			known:  ErrUntrusted, unverified: true,
		}, {
			name: "a KEK that the KMS does not have",
			attack: func(s *site) {
				set := s.settings("gone")
				set.Serial = 2
				s.seal(set, invented(s, "gone"), s.kek("k1"))
			},
			known: keys.ErrNotFound, unknown: keys.ErrNotFound, trusted: keys.ErrNotFound,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSite(t)
			if err := s.mount(s.host, false); err != nil {
				t.Fatalf("before: %v", err)
			}
			c.attack(s)
			before := string(s.read())
			if c.unverified {
				st := s.open(s.host)
				wantError(t, "Trust", st.Trust("", "", false), c.known)
			}
			wantError(t, "known", s.mount(s.host, false), c.known)
			wantError(t, "unknown", s.mount(newHost(t), false), c.unknown)
			wantError(t, "trusted", s.mount(s.host, true), c.trusted)
			if c.trusted == nil {
				wantError(t, "after trust", s.mount(s.host, false), nil)
			}
			if string(s.read()) != before {
				t.Error("settings were written")
			}
		})
	}
}

// invented is a KEK of a name of the KMS with other material.
func invented(s *site, id string) *keys.KEK {
	k, err := keys.NewKEK("corp", id, material("invented"))
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(k.Wipe)
	return k
}

func wantError(t *testing.T, when string, err, want error) {
	t.Helper()
	if want == nil && err != nil || !errors.Is(err, want) {
		t.Errorf("%s: error %v, want %v", when, err, want)
	}
	if err == nil {
		return
	}
	// Nothing is to be put back where a host only missed some changes.
	if errors.Is(err, ErrUntrusted) == strings.Contains(err.Error(), "put back") && errors.Is(err, keys.ErrSeal) {
		t.Errorf("%s: %v gives the wrong advice", when, err)
	}
	for _, other := range []error{keys.ErrSeal, keys.ErrNoKey} {
		// A changed KEK without a voucher is both untrusted and a wrong seal.
		if errors.Is(err, other) && !errors.Is(want, other) && !(want == ErrUntrusted && other == keys.ErrSeal) {
			t.Errorf("%s: error %v is %v too", when, err, other)
		}
	}
}

func TestRollback(t *testing.T) {
	s := newSite(t)
	old := s.read()
	st := s.open(s.host)
	next := s.settings("k1")
	next.Clear = []string{"*.iso"}
	if err := st.Change(next, s.kek("k1")); err != nil {
		t.Fatal(err)
	}
	wantError(t, "after the change", s.mount(s.host, false), nil)
	newer := s.read()
	s.write(old)
	err := s.mount(s.host, false)
	wantError(t, "rolled back", err, ErrUntrusted)
	if err != nil && (!strings.Contains(err.Error(), "serial 1, older than 2") || !strings.Contains(err.Error(), "--trust")) {
		t.Errorf("error %q says not what or how", err)
	}
	s.write(newer)
	wantError(t, "forward again", s.mount(s.host, false), nil)
	s.write(old)
	wantError(t, "rolled back and accepted", s.mount(s.host, true), nil)
	wantError(t, "accepted for good", s.mount(s.host, false), nil)
}

func TestPins(t *testing.T) {
	s := newSite(t)
	for _, c := range []struct {
		name, id, kek string
		want          error
	}{
		{"both", testID.String(), "k1", nil},
		{"other id", "00112233-4455-4677-8899-aabbccddeeff", "k1", ErrUntrusted},
		{"other KEK", testID.String(), "k2", ErrUntrusted},
		{"other KEK alone", "", "k2", ErrUntrusted},
	} {
		for _, trust := range []bool{false, true} {
			if err := s.open(newHost(t)).Trust(c.id, c.kek, trust); !errors.Is(err, c.want) {
				t.Errorf("%s, trust %v: %v, want %v", c.name, trust, err, c.want)
			}
		}
	}
	if err := s.open(s.host).Trust("no uuid", "", false); err == nil || errors.Is(err, ErrUntrusted) {
		t.Errorf("malformed pin: %v", err)
	}
}

// Without a KMS: checks that need no KMS are decided, the others say why not, and succeed later.
func TestVerifyWithoutKMS(t *testing.T) {
	s := newSite(t)
	s.kms.fail = keys.ErrUnreachable
	st := s.open(s.host)
	if err := st.Trust("", "", false); err != nil {
		t.Errorf("Trust: %v", err)
	}
	wantError(t, "KMS away", st.Verify(t.Context(), s.cache()), keys.ErrUnreachable)
	if st.Verified() {
		t.Error("verified without a KMS")
	}
	s.kms.fail = nil
	wantError(t, "KMS back", st.Verify(t.Context(), s.cache()), nil)
}

// A KMS was restored empty and gives the remembered identifier to another key.
func TestVerifyOtherKeyOfSameName(t *testing.T) {
	s := newSite(t)
	s.kms.keys["k1"] = "made again"
	wantError(t, "known", s.mount(s.host, false), keys.ErrWrongKey)
	wantError(t, "unknown", s.mount(newHost(t), false), keys.ErrSeal)
}

// The vouching KEK is gone: not ErrSeal, and the error names the way out.
func TestPreviousKEKGone(t *testing.T) {
	s := newSite(t)
	set := s.settings("k2")
	set.Serial = 2
	s.seal(set, s.kek("k2"), s.kek("k1"))
	delete(s.kms.keys, "k1")
	err := s.mount(s.host, false)
	wantError(t, "without", err, keys.ErrNotFound)
	if err != nil && !strings.Contains(err.Error(), "--trust") {
		t.Errorf("error %q names no way out", err)
	}
	wantError(t, "with --trust", s.mount(s.host, true), nil)
}

// The path decides: another datastore at the path is not a new one.
func TestDirectorySwapped(t *testing.T) {
	s := newSite(t)
	wantError(t, "before", s.mount(s.host, false), nil)
	other := newSite(t)
	id := layout.FileID{0: 9, 6: 0x40, 8: 0x80}
	set := other.settings("k1")
	set.ID = id
	other.seal(set, other.kek("k1"), nil)
	if err := errors.Join(os.RemoveAll(s.backing), os.Rename(other.backing, s.backing)); err != nil {
		t.Fatal(err)
	}
	wantError(t, "swapped", s.mount(s.host, false), ErrUntrusted)
	// Init states that the datastore is another one now.
	if err := os.RemoveAll(s.path("")); err != nil {
		t.Fatal(err)
	}
	s.init(s.settings("k2"))
	wantError(t, "made again", s.mount(s.host, false), nil)
}

// A datastore that was moved, or is reached through a link, is still the known one.
func TestDirectoryMoved(t *testing.T) {
	s := newSite(t)
	old := s.read()
	if err := s.open(s.host).Change(s.settings("k1"), s.kek("k1")); err != nil {
		t.Fatal(err)
	}
	moved := filepath.Join(t.TempDir(), "moved")
	link := filepath.Join(t.TempDir(), "link")
	if err := errors.Join(os.Rename(s.backing, moved), os.Symlink(moved, link)); err != nil {
		t.Fatal(err)
	}
	for _, s.backing = range []string{moved, link} {
		newer := s.read()
		s.write(old)
		wantError(t, "rolled back", s.mount(s.host, false), ErrUntrusted)
		s.write(newer)
		wantError(t, "moved", s.mount(s.host, false), nil)
	}
	records, err := os.ReadFile(filepath.Join(s.host.state, memoryName))
	if err != nil || strings.Count(string(records), "[[datastore]]") != 1 {
		t.Errorf("memory, want one record (%v):\n%s", err, records)
	}
}

func TestVerifyConcurrent(t *testing.T) {
	s := newSite(t)
	host := newHost(t)
	c := s.cache()
	var wg sync.WaitGroup
	for range 4 {
		st := s.open(host)
		for range 4 {
			wg.Go(func() {
				if err := st.Verify(t.Context(), c); err != nil {
					t.Error(err)
				}
				st.Verified()
				st.Settings()
			})
		}
	}
	wg.Wait()
}

// A record written by another process between this process's Trust and its Verify counts.
func TestVerifyOvertaken(t *testing.T) {
	s := newSite(t)
	late := s.open(s.host)
	if err := late.Trust("", "", false); err != nil {
		t.Fatal(err)
	}
	if err := s.open(s.host).Change(s.settings("k1"), s.kek("k1")); err != nil {
		t.Fatal(err)
	}
	wantError(t, "overtaken", late.Verify(t.Context(), s.cache()), ErrUntrusted)
	if late.Verified() {
		t.Error("verified")
	}
}

// Once the seal was checked, the KEK is known for good by the check value, whatever the KMS says
// later.
func TestKEK(t *testing.T) {
	s := newSite(t)
	check := func(when string, ref keys.Ref, id string, want *keys.KEK) {
		t.Helper()
		if ref.Provider != "corp" || ref.ID != id || (ref.Check == nil) != (want == nil) ||
			want != nil && *ref.Check != want.CheckValue() {
			t.Errorf("%s: %+v", when, ref)
		}
	}
	host := newHost(t)
	st := s.open(host)
	check("opened", st.KEK(), "k1", nil)
	if err := st.Trust("", "", false); err != nil {
		t.Fatal(err)
	}
	check("trusted, nothing remembered", st.KEK(), "k1", nil)
	if err := st.Verify(t.Context(), s.cache()); err != nil {
		t.Fatal(err)
	}
	check("verified", st.KEK(), "k1", s.kek("k1"))
	if err := st.ChangeKEK(s.settings("k2"), s.kek("k2"), s.kek("k1")); err != nil {
		t.Fatal(err)
	}
	check("changed", st.KEK(), "k2", s.kek("k2"))

	known := s.open(host)
	if err := known.Trust("", "", false); err != nil {
		t.Fatal(err)
	}
	check("remembered", known.KEK(), "k2", s.kek("k2"))
	s.kms.keys["k2"] = "made again"
	err := s.cache().UseForNew(t.Context(), known.KEK(), func(*keys.KEK) error { return nil })
	wantError(t, "another key of that name", err, keys.ErrWrongKey)
}
