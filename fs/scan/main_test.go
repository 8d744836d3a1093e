package scan

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"vmcryptfs/fs/datastore"
	"vmcryptfs/keys"
	"vmcryptfs/layout"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Names of the tests.
const (
	thisHost  = "0123456789abcdef"
	otherHost = "fedcba9876543210"
)

// kms is a provider in memory.
type kms struct {
	mu     sync.Mutex
	states map[string]keys.State // by identifier
	asked  map[string]int        // calls of State
	fail   error                 // of State
}

func (k *kms) Name() string { return "corp" }

func (k *kms) Get(_ context.Context, id string, _ func(*keys.KEK) bool) (*keys.KEK, keys.State, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	state, ok := k.states[id]
	if !ok {
		return nil, state, keys.ErrNotFound
	}
	kek, err := keys.NewKEK("corp", id, fmt.Appendf(nil, "%-32.32s", id))
	return kek, state, err
}

func (k *kms) State(_ context.Context, id string) (keys.State, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.asked[id]++
	state, ok := k.states[id]
	if k.fail == nil && !ok {
		return state, keys.ErrNotFound
	}
	return state, k.fail
}

func (k *kms) Create(context.Context, string) (*keys.KEK, error)   { return nil, keys.ErrRefused }
func (k *kms) Ready(context.Context, string) (c [16]byte, _ error) { return c, keys.ErrRefused }
func (k *kms) Health() []keys.ServerHealth                         { return nil }
func (k *kms) Close() error                                        { return nil }

// site is a datastore with a provider.
type site struct {
	Config
	t    *testing.T
	corp *kms
	host *datastore.Host
}

// newSite makes a datastore with more settings than those that every one has.
func newSite(t *testing.T, more layout.Settings) *site {
	t.Helper()
	s := &site{t: t, corp: &kms{
		states: map[string]keys.State{"k1": keys.Active, "old": keys.Deactivated, "gone": keys.Destroyed},
		asked:  map[string]int{},
	}}
	more.Format, more.ID, more.Provider, more.KEK, more.Serial = 1, keys.NewFileID(), "corp", "k1", 1
	s.host = datastore.NewHost(filepath.Join(t.TempDir(), "state"))
	kek, _, err := s.corp.Get(t.Context(), "k1", nil)
	s.must(err)
	defer kek.Wipe()
	backing := t.TempDir()
	s.must(s.host.Init(backing, more, kek))
	store, err := s.host.Open(backing, false)
	s.must(err)
	t.Cleanup(func() { s.Store.Close() })
	cache := keys.NewCache(slog.New(slog.DiscardHandler), s.corp)
	t.Cleanup(func() { cache.Close() })
	s.Config = Config{Store: store, Keys: cache, Host: thisHost, Settle: time.Nanosecond}
	return s
}

// reopen opens the datastore anew: nothing is proven.
func (s *site) reopen() {
	s.t.Helper()
	store, err := s.host.Open(s.Store.Path(), false)
	s.must(err)
	s.must(s.Store.Close())
	s.Store = store
}

func (s *site) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// part is what lies at an offset of a file.
type part struct {
	off  int64
	what []byte
}

// plant makes a file of a length, at least that of its parts, with a hole around them.
func (s *site) plant(at string, size int64, parts ...part) {
	s.t.Helper()
	at = filepath.Join(s.Store.Path(), at)
	s.must(os.MkdirAll(filepath.Dir(at), 0o755))
	f, err := os.Create(at)
	s.must(err)
	defer f.Close()
	s.must(f.Truncate(size))
	for _, p := range parts {
		_, err := f.WriteAt(p.what, p.off)
		s.must(err)
	}
}

// text makes a file with a content.
func (s *site) text(at, content string) { s.plant(at, 0, part{0, []byte(content)}) }

// encrypted makes an encrypted file with a header, and more.
func (s *site) encrypted(at string, h *layout.Header, more ...part) {
	slot := h.AppendSlot(nil)
	s.plant(at, layout.DataOffset+4096, append([]part{{0, slot}, {layout.SlotBOffset, slot}}, more...)...)
}

// headerOf is a header with lockers under KEKs.
func headerOf(ids ...string) *layout.Header {
	h := &layout.Header{Generation: 1, FileID: keys.NewFileID()}
	for i, id := range ids {
		h.Lockers[i] = layout.Locker{Wrap: layout.WrapKMIP, Provider: "corp", KeyID: id}
	}
	return h
}

// scan scans, and gives what was found as "kind path" or, in clear, "kind path clear".
func (s *site) scan() (*Report, []string) {
	s.t.Helper()
	r, err := Run(s.t.Context(), s.Config)
	s.must(err)
	var list []string
	for _, f := range r.Findings {
		text := f.Kind + " " + f.Path
		if f.Clear {
			text += " clear"
		}
		list = append(list, text)
		if f.Why == "" {
			s.t.Errorf("%s: no reason", text)
		}
	}
	return r, list
}

// finds checks that a scan finds just what is wanted, in any order.
func (s *site) finds(want ...string) *Report {
	s.t.Helper()
	r, got := s.scan()
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		s.t.Errorf("found %q\nwant %q", got, want)
		for _, f := range r.Findings {
			s.t.Logf("%+v", f)
		}
	}
	return r
}
