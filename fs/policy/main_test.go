package policy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"vmcryptfs/fs/datastore"
	"vmcryptfs/keys"
	"vmcryptfs/layout"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// kms is a provider in memory.
type kms struct {
	name string

	mu     sync.Mutex
	states map[string]keys.State // by identifier
	made   []string              // names of keys that were made
	fail   error                 // of Create
}

func (k *kms) Name() string { return k.name }

func (k *kms) Get(_ context.Context, id string, _ func(*keys.KEK) bool) (*keys.KEK, keys.State, error) {
	state, err := k.State(context.Background(), id)
	if err != nil {
		return nil, state, err
	}
	kek, err := keys.NewKEK(k.name, id, []byte(fmt.Sprintf("%-32.32s", k.name+id)))
	return kek, state, err
}

func (k *kms) State(_ context.Context, id string) (keys.State, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	state, ok := k.states[id]
	if !ok {
		return keys.StateUnknown, keys.ErrNotFound
	}
	return state, nil
}

func (k *kms) Create(ctx context.Context, label string) (*keys.KEK, error) {
	if k.fail != nil {
		return nil, k.fail
	}
	k.mu.Lock()
	id := fmt.Sprintf("made%d", len(k.made))
	k.made, k.states[id] = append(k.made, label), keys.Active
	k.mu.Unlock()
	kek, _, err := k.Get(ctx, id, nil)
	return kek, err
}

func (k *kms) Ready(ctx context.Context, id string) (check [16]byte, err error) {
	kek, state, err := k.Get(ctx, id, nil)
	if err != nil {
		return check, err
	}
	defer kek.Wipe()
	if state != keys.Active {
		return check, keys.ErrKeyState
	}
	return kek.CheckValue(), nil
}

func (k *kms) Health() []keys.ServerHealth { return nil }
func (k *kms) Close() error                { return nil }

// site is a datastore with two providers.
type site struct {
	*Config
	t           *testing.T
	corp, spare *kms
	taken       int // calls of TakeUp
}

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{t: t,
		corp:  &kms{name: "corp", states: map[string]keys.State{"k1": keys.Active, "k2": keys.Active, "old": keys.Deactivated}},
		spare: &kms{name: "spare", states: map[string]keys.State{"s1": keys.Active}},
	}
	backing := t.TempDir()
	host := datastore.NewHost(filepath.Join(t.TempDir(), "state"))
	kek, _, err := s.corp.Get(t.Context(), "k1", nil)
	s.must(err)
	defer kek.Wipe()
	s.must(host.Init(backing, layout.Settings{Format: 1, ID: keys.NewFileID(), Provider: "corp", KEK: "k1", Serial: 1}, kek))
	store, err := host.Open(backing, true)
	s.must(err)
	t.Cleanup(func() { store.Close() })
	cache := keys.NewCache(slog.New(slog.DiscardHandler), s.corp, s.spare)
	t.Cleanup(func() { cache.Close() })
	s.Config = &Config{
		Store: store, Keys: cache, TakeUp: func() { s.taken++ },
		Label: func(place layout.FileID, n uint64) string { return fmt.Sprintf("%v.%d", place, n) },
	}
	return s
}

func (s *site) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// do does r, which succeeds.
func (s *site) do(r Request) Result {
	s.t.Helper()
	res, err := Do(s.t.Context(), *s.Config, r)
	if err != nil {
		s.t.Fatalf("%+v: %v", r, err)
	}
	return res
}

// refused checks that r fails with the words, and that nothing is changed. request: it is an
// ErrRequest.
func (s *site) refused(r Request, request bool, words string) {
	s.t.Helper()
	before := s.Store.Settings().Serial
	_, err := Do(s.t.Context(), *s.Config, r)
	if err == nil || !strings.Contains(err.Error(), words) || errors.Is(err, ErrRequest) != request {
		s.t.Errorf("%s %s %s: %v, want %q", r.Do, r.Name, r.Path, err, words)
	}
	if now := s.Store.Settings().Serial; now != before {
		s.t.Errorf("%s %s: serial %d after a refusal, want %d", r.Do, r.Name, now, before)
	}
}

func set(at, name string) Request { return Request{Do: DoSet, Path: []byte(at), Name: name} }

func define(name, kek string) Request {
	return Request{Do: DoDefine, Name: name, Encrypt: true, KEK: kek}
}

func (s *site) path(at string) string { return filepath.Join(s.Store.Path(), at) }

func (s *site) mkdir(at ...string) {
	s.t.Helper()
	for _, a := range at {
		s.must(os.MkdirAll(s.path(a), 0o755))
	}
}

// clear puts cleartext into the file at a path.
func (s *site) clear(at string) {
	s.t.Helper()
	s.must(os.MkdirAll(filepath.Dir(s.path(at)), 0o755))
	s.must(os.WriteFile(s.path(at), []byte("in clear"), 0o644))
}

func (s *site) rename(from, to string) {
	s.t.Helper()
	s.must(os.Rename(s.path(from), s.path(to)))
}

// placeAt is the place sealed at a path; it must be there.
func (s *site) placeAt(at string) layout.Place {
	s.t.Helper()
	settings := s.Store.Settings()
	i := findPlace(settings, at)
	if i < 0 {
		s.t.Fatalf("no place at %s in %+v", at, settings.Places)
	}
	return settings.Places[i]
}

// tagged checks that the directory at a path holds the tag of the place sealed there, or none.
func (s *site) tagged(at string, want bool) {
	s.t.Helper()
	b, err := os.ReadFile(filepath.Join(s.path(at), layout.PlaceTag))
	switch {
	case !want && !errors.Is(err, os.ErrNotExist):
		s.t.Errorf("%s has a tag: %q, %v", at, b, err)
	case want && (err != nil || string(b) != layout.TagText(s.placeAt(at).ID)):
		s.t.Errorf("%s: tag %q, %v", at, b, err)
	}
}

// listed is the place at a path in a List.
func (s *site) listed(at string) Place {
	s.t.Helper()
	l, err := List(s.t.Context(), *s.Config)
	s.must(err)
	for _, p := range l.Places {
		if p.Path == at {
			return p
		}
	}
	s.t.Fatalf("%s is not in %+v", at, l.Places)
	return Place{}
}
