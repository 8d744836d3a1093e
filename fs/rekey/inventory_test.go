package rekey

import (
	"bytes"
	"context"
	"errors"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"

	"vmcryptfs/fs/wire"
	"vmcryptfs/layout"
)

var (
	corpK1  = wire.KeyName{Provider: "corp", Identifier: "k1"}
	corpK2  = wire.KeyName{Provider: "corp", Identifier: "k2"}
	spareS1 = wire.KeyName{Provider: "spare", Identifier: "s1"}
)

func TestInventory(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	k1, k2, s1 := s.kek(s.corp, "k1"), s.kek(s.corp, "k2"), s.kek(s.spare, "s1")
	s.file("vm2/a.img", k1)
	s.file("vm1/b.img", k1, s1)
	s.file("vm1/a.img", k2)
	s.file("bad.img", k1)
	s.flip("bad.img", 0)
	must(t, os.WriteFile(s.path("vm1/vmware.log"), bytes.Repeat([]byte("x"), 2<<20), 0o600))
	for _, withPaths := range []bool{true, false} {
		v, err := TakeInventory(t.Context(), s.store.Fd(), withPaths)
		must(t, err)
		want := map[wire.KeyName]*Use{
			corpK1:  {Files: 2, Lost: 1, Paths: []string{"vm1/b.img", "vm2/a.img"}},
			corpK2:  {Files: 1, Lost: 1, Paths: []string{"vm1/a.img"}},
			spareS1: {Files: 1, Paths: []string{"vm1/b.img"}},
		}
		if !withPaths {
			for _, use := range want {
				use.Paths = nil
			}
		}
		if diff := cmp.Diff(want, v.Uses); diff != "" {
			t.Errorf("with paths %t (-want +got):\n%s", withPaths, diff)
		}
		if len(v.Unread) != 1 || v.Unread[0].Path != "bad.img" || !errors.Is(v.Unread[0].Err, layout.ErrDamaged) {
			t.Errorf("unread %v, want bad.img alone", v.Unread)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if v, err := TakeInventory(ctx, s.store.Fd(), false); !errors.Is(err, context.Canceled) || v != nil {
		t.Errorf("of a walk that is cut off: %+v, %v", v, err)
	}
}

// A KEK is counted once for each file, and is a file's last only where nothing else may
// open the file.
func TestInventoryCount(t *testing.T) {
	t.Parallel()
	locker := func(n wire.KeyName) layout.Locker {
		return layout.Locker{Wrap: layout.WrapKMIP, Provider: n.Provider, KeyID: n.Identifier}
	}
	unknown := layout.Locker{Wrap: layout.WrapKMIP + 7}
	for _, c := range []struct {
		name    string
		lockers []layout.Locker
		want    map[wire.KeyName]*Use
	}{
		{"none", nil, map[wire.KeyName]*Use{}},
		{"one", []layout.Locker{locker(corpK1)}, map[wire.KeyName]*Use{corpK1: {Files: 1, Lost: 1}}},
		{"behind a gap", []layout.Locker{{}, locker(corpK1)}, map[wire.KeyName]*Use{corpK1: {Files: 1, Lost: 1}}},
		{"twice the same", []layout.Locker{locker(corpK1), locker(corpK1)}, map[wire.KeyName]*Use{corpK1: {Files: 1, Lost: 1}}},
		{"two", []layout.Locker{locker(corpK1), locker(spareS1)}, map[wire.KeyName]*Use{corpK1: {Files: 1}, spareS1: {Files: 1}}},
		{"one beside an unknown wrap", []layout.Locker{unknown, locker(corpK1)}, map[wire.KeyName]*Use{corpK1: {Files: 1}}},
		{"an unknown wrap alone", []layout.Locker{unknown}, map[wire.KeyName]*Use{}},
	} {
		v := &Inventory{Uses: map[wire.KeyName]*Use{}}
		h := &layout.Header{}
		copy(h.Lockers[:], c.lockers)
		v.count(h)
		if diff := cmp.Diff(c.want, v.Uses); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
	}
}
