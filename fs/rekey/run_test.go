package rekey

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"vmcryptfs/fs/backing"
	"vmcryptfs/fs/cryptfile"
	"vmcryptfs/fs/datastore"
	"vmcryptfs/fs/wire"
	"vmcryptfs/integration/mounttest"
	"vmcryptfs/keys"
	"vmcryptfs/layout"
)

// tree makes files under k1 in several directories, and their wraps.
func (s *site) tree() (rels []string, wraps [][]byte) {
	s.t.Helper()
	k1 := s.kek(s.corp, "k1")
	rels = []string{"vm1/a-flat.vmdk", "vm1/a.nvram", "vm2/deep/er/b.qcow2", "c.img"}
	for _, rel := range rels {
		s.file(rel, k1)
		wraps = append(wraps, s.wraps(rel)...)
	}
	return rels, wraps
}

func TestWholeDatastoreNewKey(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	rels, wraps := s.tree()
	must(t, os.WriteFile(s.path("vm1/vmware.log"), content("log"), 0o600))
	// Not for rekey: the targets of links leading outside, and reserved names.
	outside := newSite(t)
	outside.file("outside.img", outside.kek(outside.corp, "k1"))
	must(t, os.Symlink(outside.path("outside.img"), s.path("link.img")))
	must(t, os.Symlink(outside.backing, s.path("linkdir")))
	must(t, unix.Mkfifo(s.path("fifo"), 0o600))
	s.file("vm1/.vmcryptfs-temp", s.kek(s.corp, "k2"))
	before := s.slots("vm1/.vmcryptfs-temp").Header

	settled := 0
	config := s.config()
	config.TakeUp = func() {
		settled++
		if got := s.store.Settings().KEK; got == "k1" {
			t.Error("waited for creations before the settings changed")
		}
	}
	var events []Event
	sum, err := Run(t.Context(), config, Request{Paths: []string{"."}, New: true}, func(e Event) error {
		if got := s.store.Settings().KEK; got == "k1" {
			t.Errorf("%s was done while the settings named k1", e.Path)
		}
		events = append(events, e)
		return nil
	})
	must(t, err)
	want := Summary{KeyName: wire.KeyName{Provider: "corp", Identifier: sum.Identifier}, Created: true, Current: true, Files: 4, Rekeyed: 4, Clear: 1, Passes: 2, Rest: wire.Rest{Complete: true}}
	if diff := cmp.Diff(want, sum); diff != "" {
		t.Error(diff)
	}
	if settled != 1 {
		t.Errorf("waited for creations %d times", settled)
	}
	first := Event{KeyName: wire.KeyName{Provider: "corp", Identifier: sum.Identifier}, Created: true, Current: true, Pass: 1, Total: 5}
	last := first
	last.Path, last.Pass, last.Done, last.Files, last.Rekeyed = "c.img", 2, 5, 4, 4
	if len(events) != 11 || events[0] != first {
		t.Errorf("events %+v, want the first %+v", events, first)
	}
	end := events[len(events)-1]
	if end.Path = last.Path; end != last {
		t.Errorf("last event %+v, want %+v", end, last)
	}
	fresh := s.kek(s.corp, sum.Identifier)
	for _, rel := range rels {
		if got := s.lockers(rel); !slices.Equal(got, []string{"corp/" + sum.Identifier}) {
			t.Errorf("%s: lockers %v", rel, got)
		}
		s.opens(rel, fresh)
	}
	s.wantGone(wraps...)
	if got := outside.lockers("outside.img"); !slices.Equal(got, []string{"corp/k1"}) {
		t.Errorf("the file outside has lockers %v", got)
	}
	if diff := cmp.Diff(before.MAC, s.slots("vm1/.vmcryptfs-temp").Header.MAC); diff != "" {
		t.Error("a reserved name was rekeyed")
	}
	if id := s.corp.names[label(2)]; id != sum.Identifier {
		t.Errorf("the key of serial 2 is %q at the KMS, want %q", id, sum.Identifier)
	}
	s.wantSettings("corp", sum.Identifier, 2)
}

// wantSettings reads the settings as a host with the former KEK in memory.
func (s *site) wantSettings(provider, kek string, serial uint64) {
	s.t.Helper()
	s.reopen()
	must(s.t, s.store.Verify(s.t.Context(), s.cache))
	got := s.store.Settings()
	if got.Provider != provider || got.KEK != kek || got.Serial != serial {
		s.t.Errorf("settings %+v, want key %s of %s, serial %d", got, kek, provider, serial)
	}
}

// Another host with the old KEK in memory accepts the new KEK by mac_previous.
func TestOtherHostFollows(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	other := datastore.NewHost(filepath.Join(t.TempDir(), "other"))
	verify := func() error {
		st, err := other.Open(s.backing, false)
		must(t, err)
		defer st.Close()
		return st.Verify(t.Context(), s.cache)
	}
	must(t, verify())
	s.run(Request{Paths: []string{"."}, To: "k2"})
	must(t, verify())
}

func TestResume(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	rels, wraps := s.tree()
	errStop := errors.New("stop")
	sum, err := Run(t.Context(), s.config(), Request{Paths: []string{"."}, New: true}, func(e Event) error {
		if e.Done == 2 {
			return errStop
		}
		return nil
	})
	if !errors.Is(err, errStop) || sum.Complete || sum.Rekeyed != 2 {
		t.Fatalf("stopped: %+v, %v", sum, err)
	}
	s.reopen()
	for _, rel := range rels { // under either key
		h := s.slots(rel).Header
		dek, err := unwrap(h, s.kek(s.corp, "k1"), s.kek(s.corp, sum.Identifier))
		must(t, err)
		dek.Wipe()
	}
	again := s.run(Request{Paths: []string{"."}})
	want := Summary{KeyName: wire.KeyName{Provider: "corp", Identifier: sum.Identifier}, Files: 4, Already: 2, Rekeyed: 2, Passes: 2, Rest: wire.Rest{Complete: true}}
	if diff := cmp.Diff(want, again); diff != "" {
		t.Error(diff)
	}
	s.wantGone(wraps...)
	third := s.run(Request{Paths: []string{"."}})
	if third.Already != 4 || third.Rekeyed != 0 || third.Passes != 1 || !third.Complete {
		t.Errorf("third run: %+v", third)
	}
	s.corp.differ = keys.ErrServersDiffer // a server has another key now, and is passed over
	if named := s.run(Request{Paths: []string{"."}, To: sum.Identifier}); named.Already != 4 || !named.Complete {
		t.Errorf("to the key in use: %+v", named)
	}
}

// TestDoneIsReadAlone: for a file already under the new key, a watcher of BACKING sees no end of a
// write. Not parallel: a process that another test starts has copies of the descriptors of the first
// run until its exec, and would end the write late.
func TestDoneIsReadAlone(t *testing.T) {
	s := newSite(t)
	rels, _ := s.tree()
	s.run(Request{Paths: []string{"."}, New: true})
	watcher, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	must(t, err)
	defer unix.Close(watcher)
	for _, rel := range rels {
		_, err := unix.InotifyAddWatch(watcher, s.path(rel), unix.IN_CLOSE_WRITE)
		must(t, err)
	}
	again := s.run(Request{Paths: []string{"."}})
	if again.Already != int64(len(rels)) {
		t.Errorf("%+v, want %d files already done", again, len(rels))
	}
	if n, err := unix.Read(watcher, make([]byte, 4096)); !errors.Is(err, unix.EAGAIN) {
		t.Errorf("%d bytes of events, %v: what was done was opened for writing", n, err)
	}
}

func TestCancelled(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.tree()
	ctx, cancel := context.WithCancel(t.Context())
	sum, err := Run(ctx, s.config(), Request{Paths: []string{"."}, To: "k2"}, func(e Event) error {
		if e.Path != "" {
			cancel()
		}
		return nil
	})
	if !errors.Is(err, context.Canceled) || sum.Rekeyed != 1 || sum.Failed != 0 || sum.Complete {
		t.Errorf("%+v, %v", sum, err)
	}
}

// A file made under the old KEK behind the walk is found by the next pass.
func TestFilesMadeMeanwhile(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.tree()
	late := []string{"vm1/late1.img", "vm1/late2.img"}
	sum, err := Run(t.Context(), s.config(), Request{Paths: []string{"."}, To: "k2"}, func(e Event) error {
		if e.Pass <= len(late) && e.Path == "vm2/deep/er/b.qcow2" {
			s.file(late[e.Pass-1], s.kek(s.corp, "k1"))
		}
		return nil
	})
	must(t, err)
	if !sum.Complete || sum.Rekeyed != 6 || sum.Files != 6 {
		t.Errorf("%+v", sum)
	}
	for _, rel := range late {
		s.opens(rel, s.kek(s.corp, "k2"))
	}
}

func TestSubtree(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		request Request
		done    []string
		kek     string
	}{
		{"a directory", Request{Paths: []string{"vm1"}, To: "k2"}, []string{"vm1/a-flat.vmdk", "vm1/a.nvram"}, "k2"},
		{"two files", Request{Paths: []string{"c.img", "vm1//a.nvram"}, To: "k2"}, []string{"c.img", "vm1/a.nvram"}, "k2"},
		{"a new key for one VM", Request{Paths: []string{"vm2/"}, New: true}, []string{"vm2/deep/er/b.qcow2"}, "made2"},
		{"to the current key", Request{Paths: []string{"vm1"}}, nil, "k1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSite(t)
			rels, _ := s.tree()
			sum := s.run(c.request)
			if !sum.Complete || sum.Current || sum.Rekeyed != int64(len(c.done)) || sum.Identifier != c.kek {
				t.Errorf("%+v", sum)
			}
			for _, rel := range rels {
				want := "corp/k1"
				if slices.Contains(c.done, rel) {
					want = "corp/" + c.kek
				}
				if got := s.lockers(rel); !slices.Equal(got, []string{want}) {
					t.Errorf("%s: lockers %v, want %s", rel, got, want)
				}
			}
			s.wantSettings("corp", "k1", 1)
		})
	}
}

func TestAddAndDrop(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	rels, wraps := s.tree()
	all := []string{"."}
	sum := s.run(Request{Paths: all, Add: "spare"})
	if !sum.Complete || !sum.Created || sum.Current || sum.Provider != "spare" || sum.Rekeyed != 4 {
		t.Errorf("add: %+v", sum)
	}
	for _, rel := range rels {
		if got := s.lockers(rel); !slices.Equal(got, []string{"corp/k1", "spare/" + sum.Identifier}) {
			t.Errorf("%s: lockers %v", rel, got)
		}
		s.opens(rel, s.kek(s.corp, "k1"))
		s.opens(rel, s.kek(s.spare, sum.Identifier))
	}
	// Found by name, not made again.
	if again := s.run(Request{Paths: all, Add: "spare"}); again.Created || again.Identifier != sum.Identifier || again.Rekeyed != 0 {
		t.Errorf("add again: %+v", again)
	}
	if drop := s.run(Request{Paths: []string{"vm1"}, Drop: "corp"}); !drop.Complete || drop.Rekeyed != 2 || drop.Identifier != "" {
		t.Errorf("drop: %+v", drop)
	}
	if got := s.lockers("vm1/a.nvram"); !slices.Equal(got, []string{"spare/" + sum.Identifier}) {
		t.Errorf("lockers %v", got)
	}
	s.opens("vm1/a.nvram", s.kek(s.spare, sum.Identifier))
	// The last one stays.
	refused := s.run(Request{Paths: []string{"vm1/a.nvram"}, Drop: "spare"})
	if refused.Complete || refused.Failed != 1 || !errors.Is(refused.Err(), ErrLastLocker) {
		t.Errorf("drop of the last: %+v", refused)
	}
	s.opens("vm1/a.nvram", s.kek(s.spare, sum.Identifier))
	// A move from one KMS to the other: the settings go along.
	moved := s.run(Request{Paths: all, Add: "spare", Drop: "corp"})
	if !moved.Complete || !moved.Current || moved.Rekeyed != 2 {
		t.Errorf("move: %+v", moved)
	}
	s.wantGone(wraps...)
	s.wantSettings("spare", sum.Identifier, 2)
}

// Only a provider that answers counts for keeping the file open.
func TestDropKeepsWhatOpens(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.file("a.img", s.kek(s.corp, "k1"), s.kek(s.spare, "s1"))
	s.spare.do(func() { s.spare.fail = keys.ErrUnreachable })
	sum := s.run(Request{Paths: []string{"a.img"}, Drop: "corp"})
	if sum.Complete || !errors.Is(sum.Err(), ErrLastLocker) || !errors.Is(sum.Err(), keys.ErrUnreachable) {
		t.Errorf("%+v", sum)
	}
	s.opens("a.img", s.kek(s.corp, "k1"))
}

// A file that cannot be done is reported, and the others are done.
func TestFailures(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	k1, k2 := s.kek(s.corp, "k1"), s.kek(s.corp, "k2")
	lost := newKMS("corp", "lost")
	s.file("good.img", k1)
	s.file("lost.img", s.kek(lost, "lost"))
	s.file("damaged.img", k1)
	s.file("hidden.img", k1)
	s.file("forged.img", k2)
	s.file("short.img", k1)
	must(t, os.Truncate(s.path("short.img"), 4096))
	s.flip("damaged.img", layout.SlotAOffset+100)
	s.flip("damaged.img", layout.SlotBOffset+100)
	s.flip("hidden.img", 0)
	s.forge("forged.img")
	sum := s.run(Request{Paths: []string{"."}, To: "k2"})
	want := map[string]error{
		"lost.img":    keys.ErrNotFound,
		"damaged.img": layout.ErrDamaged,
		"hidden.img":  backing.ErrHidden,
		"forged.img":  keys.ErrTampered,
		"short.img":   layout.ErrDamaged,
	}
	for _, f := range sum.Failures {
		if !errors.Is(f.Err, want[f.Path]) || !errors.Is(sum.Err(), want[f.Path]) {
			t.Errorf("%s: %v, want %v", f.Path, f.Err, want[f.Path])
		}
		delete(want, f.Path)
	}
	if sum.Complete || sum.Failed != 5 || len(want) != 0 || sum.Rekeyed != 1 {
		t.Errorf("%+v; not told: %v", sum, want)
	}
	s.opens("good.img", k2)
}

// flip inverts a byte.
func (s *site) flip(rel string, off int64) {
	s.t.Helper()
	b := s.backingFile(rel)
	var p [1]byte
	_, err := b.ReadAt(p[:], off)
	must(s.t, err)
	p[0] ^= 0xff
	_, err = b.WriteAt(p[:], off, cryptfile.Volatile)
	must(s.t, err)
}

// forge damages the wrap of a header and corrects the SHA-256, in both slots.
func (s *site) forge(rel string) {
	s.t.Helper()
	h := *s.slots(rel).Header
	h.Lockers[0].Wrapped[7] ^= 1
	b := s.backingFile(rel)
	for _, at := range []int64{layout.SlotAOffset, layout.SlotBOffset} {
		_, err := b.WriteAt(h.AppendSlot(nil), at, cryptfile.Volatile)
		must(s.t, err)
	}
}

func TestManyFailures(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	for i := range wire.MaxFailures + 5 {
		must(t, os.WriteFile(s.path(fmt.Sprintf("f%d", i)), []byte(layout.Magic), 0o600))
	}
	sum := s.run(Request{Paths: []string{"."}})
	if sum.Failed != wire.MaxFailures+5 || len(sum.Failures) != wire.MaxFailures || sum.Complete {
		t.Errorf("failed %d, listed %d", sum.Failed, len(sum.Failures))
	}
}

// Nothing changes where the key is not right.
func TestTargetRefused(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		prepare func(*site)
		request Request
		want    error
	}{
		{"deactivated", func(s *site) { s.corp.states["k2"] = keys.Deactivated }, Request{To: "k2"}, keys.ErrKeyState},
		{"compromised since it was fetched", func(s *site) {
			must(s.t, s.cache.Use(s.t.Context(), keys.Ref{Provider: "corp", ID: "k2"}, func(*keys.KEK) error { return nil }))
			s.corp.states["k2"] = keys.Compromised
		}, Request{To: "k2"}, keys.ErrKeyState},
		{"the current one deactivated", func(s *site) { s.corp.states["k1"] = keys.Deactivated }, Request{}, keys.ErrKeyState},
		{"not there", func(*site) {}, Request{To: "k9"}, keys.ErrNotFound},
		{"two of one name", func(s *site) { s.corp.differ = keys.ErrServersDiffer }, Request{To: "k2"}, keys.ErrServersDiffer},
		{"no such provider", func(*site) {}, Request{Add: "nobody"}, ErrRequest},
		{"locked", func(s *site) { s.cache.Lock() }, Request{To: "k2"}, keys.ErrLocked},
		{"old and new", func(*site) {}, Request{To: "k2", New: true}, ErrRequest},
		{"drop of the current provider", func(*site) {}, Request{Drop: "corp"}, ErrRequest},
		{"add and drop of one", func(*site) {}, Request{Add: "spare", Drop: "spare"}, ErrRequest},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSite(t)
			rels, _ := s.tree()
			c.prepare(s)
			c.request.Paths = []string{"."}
			_, err := Run(t.Context(), s.config(), c.request, func(Event) error { return nil })
			if !errors.Is(err, c.want) {
				t.Errorf("error %v, want %v", err, c.want)
			}
			for _, rel := range rels {
				if got := s.lockers(rel); !slices.Equal(got, []string{"corp/k1"}) {
					t.Errorf("%s: lockers %v", rel, got)
				}
			}
			s.wantSettings("corp", "k1", 1)
		})
	}
}

func TestPaths(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		path   string
		failed bool // in the summary
		want   error
	}{
		{"", false, ErrRequest},
		{"/etc", false, ErrRequest},
		{".vmcryptfs/datastore.toml", false, ErrRequest},
		{"vm1/.vmcryptfs-x", false, ErrRequest},
		{"..", false, ErrRequest},
		{"../", false, ErrRequest},
		{"../x", false, ErrRequest},
		{"vm1/../..", false, ErrRequest},
		{"link/x", true, unix.ELOOP},
		{"gone.img", true, unix.ENOENT},
		{"fifo", true, nil},
	} {
		t.Run(c.path, func(t *testing.T) {
			s := newSite(t)
			must(t, unix.Mkfifo(s.path("fifo"), 0o600))
			must(t, os.Symlink("/", s.path("link")))
			sum, err := Run(t.Context(), s.config(), Request{Paths: []string{c.path}}, func(Event) error { return nil })
			if c.failed {
				if err != nil || sum.Complete || sum.Failed != 1 {
					t.Fatalf("%+v, %v", sum, err)
				}
				err = sum.Failures[0].Err
			}
			if err == nil || c.want != nil && !errors.Is(err, c.want) {
				t.Errorf("error %v, want %v", err, c.want)
			}
		})
	}
}

// The names of a datastore's keys at a KMS are found despite gaps.
func TestLocated(t *testing.T) {
	t.Parallel()
	k := newKMS("corp")
	for _, n := range []uint64{1, 3, 7, 8} {
		k.names[label(n)] = fmt.Sprint("id", n)
	}
	got, err := Located(t.Context(), k, label, 6)
	must(t, err)
	if want := []string{"id8", "id7", "id3", "id1"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	k.names[label(6+keys.MostTaken)] = "gap"
	got, err = Located(t.Context(), k, label, 6)
	must(t, err)
	if len(got) == 0 || got[0] != "gap" {
		t.Errorf("behind names that the KMS did not take: got %v", got)
	}
	for n := range uint64(2 * mostTaken) { // as by a KMS that ignores the name
		k.names[label(10+n)] = "any"
	}
	if _, err := Located(t.Context(), k, label, 10); !errors.Is(err, keys.ErrRefused) {
		t.Errorf("with every name taken: %v, want %v", err, keys.ErrRefused)
	}
	clear(k.names)
	k.names[label(1)] = "far" // behind the bound
	got, err = Located(t.Context(), k, label, 1000)
	must(t, err)
	if len(got) != 0 {
		t.Errorf("got %v", got)
	}
}

// A new key skips names that are taken and not found by a search, and is found behind such names.
func TestNewPastTakenNames(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.corp.hidden = map[string]bool{label(2): true, label(3): true}
	sum := s.run(Request{Paths: []string{"."}, Add: "corp", New: true})
	if id := s.corp.names[label(4)]; id == "" || sum.Identifier != id {
		t.Errorf("the key is %q, and that of the next name %q", sum.Identifier, id)
	}
	ids, err := Located(t.Context(), s.corp, label, 2)
	must(t, err)
	if want := []string{sum.Identifier, "k1"}; !slices.Equal(ids, want) {
		t.Errorf("located %v, want %v", ids, want)
	}
}

func TestScan(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	rels, _ := s.tree()
	s.file("bad.img", s.kek(s.corp, "k1"))
	s.flip("bad.img", 0)
	must(t, os.WriteFile(s.path("vm1/vmware.log"), bytes.Repeat([]byte("x"), 2<<20), 0o600))
	var found, bad []string
	must(t, scan(t.Context(), s.store.Fd(), func(rel string, slots layout.Slots, err error) error {
		if err != nil {
			bad = append(bad, rel)
			return nil
		}
		found = append(found, rel)
		if id := slots.Header.Lockers[0].KeyID; id != "k1" {
			t.Errorf("%s is under %s", rel, id)
		}
		return nil
	}))
	slices.Sort(found)
	slices.Sort(rels)
	if !slices.Equal(found, rels) || !slices.Equal(bad, []string{"bad.img"}) {
		t.Errorf("found %v, bad %v", found, bad)
	}
}

// Directories nested deeper than paths are long end a walk there, and are told.
func TestEndlessDirectories(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	k1, k2 := s.kek(s.corp, "k1"), s.kek(s.corp, "k2")
	s.file("good.img", k1)
	mounttest.Nest(t, s.store.Fd(), unix.PathMax/50)
	sum := s.run(Request{Paths: []string{"."}, To: "k2"})
	if sum.Complete || len(sum.Failures) != 1 || !errors.Is(sum.Failures[0].Err, unix.ENAMETOOLONG) {
		t.Errorf("%+v, want one directory that was not walked", sum)
	}
	s.opens("good.img", k2)
}

// A file moved to a place already walked is found, even with nothing else left to do.
func TestFileMovedMeanwhile(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.file("one.img", s.kek(s.corp, "k1"))
	must(t, os.Rename(s.path("one.img"), filepath.Join(s.state, "..", "one.img")))
	s.file("two.img", s.kek(s.corp, "k2")) // whose event is the walk's first pass
	sum, err := Run(t.Context(), s.config(), Request{Paths: []string{"."}, To: "k2"}, func(e Event) error {
		if e.Pass == 1 && e.Path != "" {
			return os.Rename(filepath.Join(s.state, "..", "one.img"), s.path("one.img"))
		}
		return nil
	})
	must(t, err)
	if !sum.Complete || sum.Files != 2 {
		t.Errorf("%+v", sum)
	}
	s.opens("one.img", s.kek(s.corp, "k2"))
}
