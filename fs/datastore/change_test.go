package datastore

import (
	"errors"
	"math"
	"os"
	"strings"
	"testing"

	"vmcryptfs/keys"
	"vmcryptfs/layout"
)

func TestChange(t *testing.T) {
	s := newSite(t)
	st := s.open(s.host)
	for serial := uint64(2); serial < 5; serial++ {
		next := *st.Settings()
		next.Clear = append([]string{"*.iso"}, next.Clear...)
		next.Serial = 999 // not the caller's to choose
		if err := st.Change(next, s.kek("k1")); err != nil {
			t.Fatal(err)
		}
		if got := st.Settings(); got.Serial != serial || !st.Verified() {
			t.Errorf("serial %d, verified %v, want %d", got.Serial, st.Verified(), serial)
		}
		again := s.open(s.host)
		if got := again.Settings(); got.Serial != serial || len(got.Clear) != int(serial)-1 {
			t.Errorf("read back %+v", got)
		}
		wantError(t, "this host", s.mount(s.host, false), nil)
		wantError(t, "another host", s.mount(newHost(t), false), nil)
	}
}

func TestChangeKEK(t *testing.T) {
	s := newSite(t)
	knows := newHost(t)
	wantError(t, "before", s.mount(knows, false), nil)
	st := s.open(s.host)
	if err := st.ChangeKEK(s.settings("k2"), s.kek("k2"), s.kek("k1")); err != nil {
		t.Fatal(err)
	}
	wantError(t, "this host", s.mount(s.host, false), nil)
	wantError(t, "a host that knows the old KEK", s.mount(knows, false), nil)
	// The next change has the new KEK alone; k1 may go.
	if err := st.Change(s.settings("k2"), s.kek("k2")); err != nil {
		t.Fatal(err)
	}
	delete(s.kms.keys, "k1")
	wantError(t, "knows the new KEK by now", s.mount(knows, false), nil)
}

func TestChangeRefuses(t *testing.T) {
	other := layout.FileID{0: 7, 6: 0x40, 8: 0x80}
	for _, c := range []struct {
		name   string
		change func(s *site, st *Store) error
		want   error // nil: any
		words  string
	}{
		{"another KEK than the current", func(s *site, st *Store) error {
			return st.Change(s.settings("k2"), s.kek("k2"))
		}, nil, `"k1"`},
		{"KEK changed with the wrong previous", func(s *site, st *Store) error {
			return st.ChangeKEK(s.settings("k2"), s.kek("k2"), s.kek("k3"))
		}, nil, `"k1"`},
		{"next names another KEK", func(s *site, st *Store) error {
			return st.Change(s.settings("k2"), s.kek("k1"))
		}, nil, `"k2"`},
		{"right name, other key", func(s *site, st *Store) error {
			return st.Change(s.settings("k1"), invented(s, "k1"))
		}, keys.ErrSeal, ""},
		{"another id", func(s *site, st *Store) error {
			set := s.settings("k1")
			set.ID = other
			return st.Change(set, s.kek("k1"))
		}, nil, "another id"},
		{"bad rule", func(s *site, st *Store) error {
			set := s.settings("k1")
			set.Clear = []string{"["}
			return st.Change(set, s.kek("k1"))
		}, nil, "clear"},
		{"too long", func(s *site, st *Store) error {
			set := s.settings("k1")
			set.Clear = strings.Split(strings.Repeat("*.abcdefgh ", 8<<10)+"x", " ")
			return st.Change(set, s.kek("k1"))
		}, nil, ""},
		{"changed meanwhile", func(s *site, st *Store) error {
			if err := s.open(s.host).Change(s.settings("k1"), s.kek("k1")); err != nil {
				return err
			}
			return st.Change(s.settings("k1"), s.kek("k1"))
		}, ErrChanged, ""},
		// Someone's edit is not sealed along with ours.
		{"tampered before it was read", func(s *site, _ *Store) error {
			s.write([]byte(strings.Replace(string(s.read()), "*.secret", "*.xecret", 1)))
			st := s.open(s.host)
			return st.Change(*st.Settings(), s.kek("k1"))
		}, keys.ErrSeal, ""},
		{"the last serial", func(s *site, _ *Store) error {
			set := s.settings("k1")
			set.Serial = math.MaxInt64
			s.seal(set, s.kek("k1"), nil)
			st := s.open(s.host)
			return st.Change(set, s.kek("k1"))
		}, nil, "serial"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSite(t)
			st := s.open(s.host)
			err := c.change(s, st)
			if err == nil || c.want != nil && !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.words) {
				t.Errorf("error %v, want %v about %q", err, c.want, c.words)
			}
			if _, err := os.Stat(s.path(SettingsName + ".new")); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("temporary left: %v", err)
			}
			// Refused and released: a mount can have the lock.
			locked, err := s.host.Open(s.backing, true)
			if err != nil {
				t.Fatal(err)
			}
			locked.Close()
		})
	}
}
