package datastore

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"slices"
	"strings"
	"sync"
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
	if err := st.Change(*st.Settings(), s.kek("k2")); err != nil {
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
			set.Clear = strings.Split(strings.Repeat("*.abcdefgh ", 128<<10)+"x", " ")
			return st.Change(set, s.kek("k1"))
		}, nil, ""},
		{"changed meanwhile", func(s *site, st *Store) error {
			if err := s.open(s.host).Change(s.settings("k1"), s.kek("k1")); err != nil {
				return err
			}
			return st.Change(s.settings("k1"), s.kek("k1"))
		}, ErrChanged, ""},
		// The Store itself has made another change since next was made.
		{"made from older settings", func(s *site, st *Store) error {
			if err := st.Change(s.settings("k1"), s.kek("k1")); err != nil {
				return err
			}
			return st.Change(s.settings("k1"), s.kek("k1"))
		}, ErrChanged, ""},
		{"made from settings that never were", func(s *site, st *Store) error {
			next := s.settings("k1")
			next.Serial = 999
			return st.Change(next, s.kek("k1"))
		}, ErrChanged, ""},
		{"the KEK was changed since", func(s *site, st *Store) error {
			if err := st.ChangeKEK(s.settings("k2"), s.kek("k2"), s.kek("k1")); err != nil {
				return err
			}
			return st.Change(s.settings("k1"), s.kek("k1"))
		}, ErrChanged, ""},
		{"the rules were changed since, then the KEK", func(s *site, st *Store) error {
			if err := st.Change(s.settings("k1"), s.kek("k1")); err != nil {
				return err
			}
			return st.ChangeKEK(s.settings("k2"), s.kek("k2"), s.kek("k1"))
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

// TestChangesAtOnce: of changes made from the same settings one is done.
func TestChangesAtOnce(t *testing.T) {
	s := newSite(t)
	st := s.open(s.host)
	const many = 8
	errs := make(chan error, many)
	from, kek := *st.Settings(), s.kek("k1")
	for range many {
		go func() { errs <- st.Change(from, kek) }()
	}
	done := 0
	for range many {
		if err := <-errs; err == nil {
			done++
		} else if !errors.Is(err, ErrChanged) {
			t.Errorf("error %v, want %v", err, ErrChanged)
		}
	}
	if got := st.Settings().Serial; done != 1 || got != from.Serial+1 {
		t.Errorf("%d changes done, serial %d, want one and %d", done, got, from.Serial+1)
	}
}

func TestCheckUnchanged(t *testing.T) {
	s := newSite(t)
	st := s.open(s.host)
	wantError(t, "as read", st.CheckUnchanged(), nil)
	if err := st.Change(*st.Settings(), s.kek("k1")); err != nil {
		t.Fatal(err)
	}
	wantError(t, "as changed", st.CheckUnchanged(), nil)
	text := s.read()
	s.write(append(text, '\n'))
	wantError(t, "one byte more", st.CheckUnchanged(), ErrChanged)
	s.write(text)
	wantError(t, "put back", st.CheckUnchanged(), nil)
	if err := os.Remove(s.path(SettingsName)); err != nil {
		t.Fatal(err)
	}
	wantError(t, "removed", st.CheckUnchanged(), os.ErrNotExist)
}

// busyKMS is a kms of which somebody makes use of the time that a key takes.
type busyKMS struct {
	*kms
	meanwhile func()
}

func (k busyKMS) Get(ctx context.Context, id string, proves func(*keys.KEK) bool) (*keys.KEK, keys.State, error) {
	k.meanwhile()
	return k.kms.Get(ctx, id, proves)
}

// TestVerifyBesideChange: a Verify that began before a change does not have this host remember
// the older settings, which would then pass for the newest.
func TestVerifyBesideChange(t *testing.T) {
	s := newSite(t)
	old := s.read()
	st := s.open(s.host)
	kek := s.kek("k1")
	cache := keys.NewCache(slog.New(slog.DiscardHandler), busyKMS{s.kms, func() {
		if err := st.Change(*st.Settings(), kek); err != nil {
			t.Error(err)
		}
	}})
	defer cache.Close()
	if err := st.Verify(t.Context(), cache); err != nil || !st.Verified() || st.Settings().Serial != 2 {
		t.Errorf("verified %v, serial %d, %v", st.Verified(), st.Settings().Serial, err)
	}
	s.write(old)
	wantError(t, "older settings", s.mount(s.host, false), ErrUntrusted)
}

// TestEditsAtOnce: of many edits none is lost, also beside a change of the KEK, and an edit that
// alters nothing or fails writes nothing.
func TestEditsAtOnce(t *testing.T) {
	s := newSite(t)
	st := s.open(s.host)
	cache := s.cache()
	const edits = 20
	var wg sync.WaitGroup
	for i := range edits {
		wg.Go(func() {
			err := st.Edit(t.Context(), cache, func(set *layout.Settings) error {
				set.Clear = append(set.Clear, fmt.Sprintf("%d.x", i))
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Go(func() {
		for {
			next := st.Settings().Clone()
			next.KEK = "k2"
			err := st.ChangeKEK(next, s.kek("k2"), s.kek("k1"))
			if errors.Is(err, ErrChanged) {
				continue
			}
			if err != nil {
				t.Error(err)
			}
			return
		}
	})
	wg.Wait()
	now := st.Settings()
	for i := range edits {
		if name := fmt.Sprintf("%d.x", i); !slices.Contains(now.Clear, name) {
			t.Errorf("the edit %s is lost", name)
		}
	}
	if now.KEK != "k2" {
		t.Errorf("KEK %s", now.KEK)
	}
	refused := errors.New("refused")
	for want, edit := range map[error]func(*layout.Settings) error{
		nil:     func(set *layout.Settings) error { set.Clear[0] = set.Clear[0] + ""; return nil },
		refused: func(set *layout.Settings) error { set.Clear[0] = "y"; return refused },
	} {
		if err := st.Edit(t.Context(), cache, edit); !errors.Is(err, want) {
			t.Errorf("error %v, want %v", err, want)
		}
	}
	if again := st.Settings(); again.Serial != now.Serial || !slices.Equal(again.Clear, now.Clear) {
		t.Errorf("settings %+v, want %+v", again, now)
	}
	if err := s.open(s.host).CheckUnchanged(); err != nil {
		t.Error(err)
	}
}
