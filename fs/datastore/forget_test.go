package datastore

import (
	"errors"
	"testing"
)

// A forgotten datastore is believed like a new one; other datastores are not affected.
func TestForget(t *testing.T) {
	s := newSite(t)
	other := &site{t: t, backing: t.TempDir(), host: s.host, kms: s.kms}
	next := s.settings("k1")
	next.ID[15]++
	other.init(next)
	before := s.read()
	if err := s.open(s.host).Change(s.settings("k1"), s.kek("k1")); err != nil {
		t.Fatal(err)
	}
	s.write(before) // a rewind
	if err := s.mount(s.host, false); !errors.Is(err, ErrUntrusted) {
		t.Fatalf("a rewind: %v, want ErrUntrusted", err)
	}
	known, err := s.host.Known()
	if err != nil || len(known) != 2 {
		t.Fatalf("known: %v, %v; want two", known, err)
	}
	mine := known[0]
	if mine.ID != testID.String() {
		mine = known[1]
	}
	if mine.Path != s.open(s.host).Path() || mine.KEK != "k1" || mine.Provider != "corp" || mine.Serial != 2 {
		t.Errorf("known: %+v", mine)
	}
	changed := mine
	changed.Serial++ // remembered meanwhile: another thing than was shown
	if err := s.host.Forget(changed); err != nil {
		t.Fatal(err)
	}
	if err := s.mount(s.host, false); !errors.Is(err, ErrUntrusted) {
		t.Fatalf("a record that nobody named is forgotten: %v", err)
	}
	if err := s.host.Forget(mine); err != nil {
		t.Fatal(err)
	}
	if left, err := s.host.Known(); err != nil || len(left) != 1 || left[0].ID != next.ID.String() {
		t.Errorf("left: %v, %v; want the other one", left, err)
	}
	if err := s.mount(s.host, false); err != nil {
		t.Errorf("mount of a forgotten datastore: %v", err)
	}
}

func TestForgetNothing(t *testing.T) {
	h := NewHost(t.TempDir() + "/none")
	if known, err := h.Known(); err != nil || len(known) != 0 {
		t.Errorf("a host without memory knows %v, %v", known, err)
	}
}
