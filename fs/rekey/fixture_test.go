package rekey

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"vmcryptfs/fs/cryptfile"
	"vmcryptfs/fs/datastore"
	"vmcryptfs/keys"
	"vmcryptfs/layout"
)

// TestMain is also the process killed by TestKilled.
func TestMain(m *testing.M) {
	if os.Getenv(killBacking) != "" {
		if err := runToBeKilled(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

// kms is a provider in memory whose keys have names.
type kms struct {
	name string

	mu     sync.Mutex
	seeds  map[string]string // of the material, by identifier
	names  map[string]string // identifier by name
	states map[string]keys.State
	fail   error           // of Get
	differ error           // of Ready
	hidden map[string]bool // taken names that a search does not find
}

func newKMS(name string, ids ...string) *kms {
	k := &kms{name: name, seeds: map[string]string{}, names: map[string]string{}, states: map[string]keys.State{}}
	for _, id := range ids {
		k.seeds[id], k.states[id] = name+id, keys.Active
	}
	return k
}

func (k *kms) do(f func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	f()
}

func (k *kms) Name() string { return k.name }

func (k *kms) Get(_ context.Context, id string, _ func(*keys.KEK) bool) (*keys.KEK, keys.State, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.fail != nil {
		return nil, keys.StateUnknown, k.fail
	}
	seed, ok := k.seeds[id]
	if !ok {
		return nil, keys.StateUnknown, keys.ErrNotFound
	}
	kek, err := keys.NewKEK(k.name, id, material(seed))
	return kek, k.states[id], err
}

func (k *kms) State(_ context.Context, id string) (keys.State, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if _, ok := k.seeds[id]; !ok {
		return 0, keys.ErrNotFound
	}
	return k.states[id], nil
}

func (k *kms) Create(ctx context.Context, name string) (*keys.KEK, error) {
	if k.hidden[name] {
		return nil, fmt.Errorf("%w: %w", keys.ErrNameTaken, keys.ErrRefused)
	}
	k.do(func() {
		id := fmt.Sprintf("made%d", len(k.seeds))
		k.seeds[id], k.states[id], k.names[name] = k.name+id, keys.Active, id
	})
	kek, _, err := k.Get(ctx, k.names[name], nil)
	return kek, err
}

func (k *kms) Find(_ context.Context, name string) (ids []string, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if id, ok := k.names[name]; ok {
		ids = append(ids, id)
	}
	return ids, nil
}

func (k *kms) Ready(ctx context.Context, id string) (check [16]byte, err error) {
	state, err := k.State(ctx, id)
	if err == nil {
		err = k.differ
	}
	if err == nil && state != keys.Active {
		err = fmt.Errorf("%w: it is %s", keys.ErrKeyState, state)
	}
	if err != nil {
		return check, err
	}
	kek, _, err := k.Get(ctx, id, nil)
	if err != nil {
		return check, err
	}
	defer kek.Wipe()
	return kek.CheckValue(), nil
}

func (k *kms) Health() []keys.ServerHealth { return nil }
func (k *kms) Close() error                { return nil }

func material(seed string) []byte {
	sum := sha256.Sum256([]byte(seed))
	return sum[:]
}

var testID = layout.FileID{0: 0x5a, 6: 0x40, 8: 0x80, 15: 1}

func label(n uint64) string { return fmt.Sprintf("vmcryptfs-%v-%d", testID, n) }

// site is a datastore under KEK "k1" of "corp"; "k2" is there too, and another provider,
// "spare", with "s1".
type site struct {
	t           *testing.T
	backing     string
	state       string // of the host
	store       *datastore.Store
	host        *datastore.Host
	corp, spare *kms
	cache       *keys.Cache
}

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{t: t, backing: t.TempDir(), state: filepath.Join(t.TempDir(), "state")}
	s.host = datastore.NewHost(s.state)
	s.corp, s.spare = newKMS("corp", "k1", "k2"), newKMS("spare", "s1")
	s.corp.names[label(1)] = "k1"
	set := layout.Settings{Format: 1, ID: testID, Provider: "corp", KEK: "k1", Serial: 1}
	must(t, s.host.Init(s.backing, set, s.kek(s.corp, "k1")))
	s.open()
	return s
}

// open opens the datastore as another process would, with an empty cache.
func (s *site) open() {
	s.t.Helper()
	var err error
	s.store, err = s.host.Open(s.backing, true)
	must(s.t, err)
	s.cache = keys.NewCache(slog.New(slog.DiscardHandler), s.corp, s.spare)
	store, cache := s.store, s.cache
	s.t.Cleanup(func() { must(s.t, errors.Join(cache.Close(), store.Close())) })
}

func (s *site) reopen() {
	s.t.Helper()
	must(s.t, errors.Join(s.cache.Close(), s.store.Close()))
	s.open()
}

func (s *site) config() Config {
	return Config{Store: s.store, Keys: s.cache, Label: label}
}

// run runs a Run that must begin.
func (s *site) run(r Request) Summary {
	s.t.Helper()
	sum, err := Run(s.t.Context(), s.config(), r, func(Event) error { return nil })
	must(s.t, err)
	return sum
}

func (s *site) kek(k *kms, id string) *keys.KEK {
	s.t.Helper()
	kek, err := keys.NewKEK(k.name, id, material(k.seeds[id]))
	must(s.t, err)
	s.t.Cleanup(kek.Wipe)
	return kek
}

func (s *site) path(rel string) string { return filepath.Join(s.backing, rel) }

// content gives the content of the file rel.
func content(rel string) []byte { return bytes.Repeat([]byte(rel+"\n"), 300) }

// file makes an encrypted file whose lockers are under keks.
func (s *site) file(rel string, keks ...*keys.KEK) {
	s.t.Helper()
	must(s.t, os.MkdirAll(filepath.Dir(s.path(rel)), 0o755))
	fd, err := unix.Open(s.path(rel), unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, 0o600)
	must(s.t, err)
	b := cryptfile.NewOSFile(fd)
	dek, err := keys.NewDEK()
	must(s.t, err)
	h := newHeader(s.t, dek, keks...)
	must(s.t, cryptfile.Format(b, h))
	f, err := cryptfile.Open(b, dek)
	must(s.t, err)
	_, err = f.WriteAt(content(rel), 0, cryptfile.Volatile)
	must(s.t, errors.Join(err, f.Close()))
}

func newHeader(t *testing.T, dek *keys.DEK, keks ...*keys.KEK) *layout.Header {
	t.Helper()
	h := &layout.Header{Generation: 1}
	rand.Read(h.FileID[:])
	for i, k := range keks {
		must(t, k.Wrap(h, i, dek))
	}
	dek.Seal(h)
	return h
}

// backingFile opens rel for the time of the test.
func (s *site) backingFile(rel string) *cryptfile.OSFile {
	s.t.Helper()
	fd, err := unix.Open(s.path(rel), unix.O_RDWR|unix.O_CLOEXEC, 0)
	must(s.t, err)
	b := cryptfile.NewOSFile(fd)
	s.t.Cleanup(func() { b.Close() })
	return b
}

func (s *site) slots(rel string) layout.Slots {
	s.t.Helper()
	slots, err := cryptfile.ReadHeader(s.backingFile(rel))
	must(s.t, err)
	return slots
}

// lockers gives the keys of the lockers of rel in order, both slots being the same.
func (s *site) lockers(rel string) []string {
	s.t.Helper()
	slots := s.slots(rel)
	if slots.Differ {
		s.t.Errorf("%s: slots differ", rel)
	}
	var list []string
	for _, l := range slots.Header.Lockers {
		if l.Wrap != 0 {
			list = append(list, l.Provider+"/"+l.KeyID)
		}
	}
	return list
}

// opens checks that kek alone opens rel, and compares the content.
func (s *site) opens(rel string, kek *keys.KEK) {
	s.t.Helper()
	b := s.backingFile(rel)
	slots, err := cryptfile.ReadHeader(b)
	must(s.t, err)
	dek, err := unwrap(slots.Header, kek)
	if err != nil {
		s.t.Errorf("%s under %s: %v", rel, kek, err)
		return
	}
	f, err := cryptfile.Open(b, dek)
	must(s.t, err)
	defer f.Close()
	got := make([]byte, f.Size())
	if _, err := f.ReadAt(got, 0); err != nil || !bytes.Equal(got, content(rel)) {
		s.t.Errorf("%s under %s: content differs, error %v", rel, kek, err)
	}
}

// unwrap opens h with kek in the locker of kek, wherever the locker is.
func unwrap(h *layout.Header, keks ...*keys.KEK) (*keys.DEK, error) {
	err := errors.New("no locker under any of the keys")
	for i := range h.Lockers {
		for _, k := range keks {
			if h.Lockers[i].Wrap != layout.WrapKMIP || h.Lockers[i].KCV != k.CheckValue() {
				continue
			}
			var dek *keys.DEK
			if dek, err = k.Unwrap(h, i); err == nil {
				return dek, nil
			}
		}
	}
	return nil, err
}

// wraps are the wrapped DEKs of rel, to look for in BACKING.
func (s *site) wraps(rel string) (all [][]byte) {
	s.t.Helper()
	h := s.slots(rel).Header
	for i := range h.Lockers {
		if h.Lockers[i].Wrap == layout.WrapKMIP {
			all = append(all, bytes.Clone(h.Lockers[i].Wrapped[:]), bytes.Clone(h.Lockers[i].Nonce[:]))
		}
	}
	return all
}

// wantGone searches every byte of BACKING for an old wrap.
func (s *site) wantGone(old ...[]byte) {
	s.t.Helper()
	if len(old) == 0 {
		s.t.Error("nothing to look for")
	}
	must(s.t, filepath.WalkDir(s.backing, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		raw, err := os.ReadFile(path)
		for _, w := range old {
			if bytes.Contains(raw, w) {
				s.t.Errorf("%s still holds an old wrap", path)
			}
		}
		return err
	}))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
