package datastore

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"vmcryptfs/keys"
	"vmcryptfs/layout"
)

// TestMain also runs the other process of tests with two processes.
func TestMain(m *testing.M) {
	if backing := os.Getenv("DATASTORE_TEST_HOLD"); backing != "" {
		os.Exit(holdLock(backing, os.Getenv("DATASTORE_TEST_STATE")))
	}
	goleak.VerifyTestMain(m)
}

// kms is a provider of the keys in a map.
type kms struct {
	name string

	mu   sync.Mutex
	keys map[string]string // material by identifier
	fail error
}

func (k *kms) Name() string { return k.name }

func (k *kms) Get(_ context.Context, id string, _ func(*keys.KEK) bool) (*keys.KEK, keys.State, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.fail != nil {
		return nil, keys.StateUnknown, k.fail
	}
	m, ok := k.keys[id]
	if !ok {
		return nil, keys.StateUnknown, keys.ErrNotFound
	}
	kek, err := keys.NewKEK(k.name, id, material(m))
	return kek, keys.Active, err
}

func (k *kms) State(context.Context, string) (keys.State, error) { return keys.Active, nil }
func (k *kms) Health() []keys.ServerHealth                       { return nil }
func (k *kms) Close() error                                      { return nil }
func (k *kms) Ready(context.Context, string) (check [16]byte, err error) {
	return check, nil
}
func (k *kms) Create(context.Context, string) (*keys.KEK, error) {
	return nil, errors.New("creates no key")
}

func material(seed string) []byte { return []byte(fmt.Sprintf("%-32.32s", seed)) }

// site is a datastore under test with a KMS and a host.
type site struct {
	t       *testing.T
	backing string
	host    *Host
	kms     *kms
}

var testID = layout.FileID{0: 0x5a, 6: 0x40, 8: 0x80, 15: 1}

// newSite makes a datastore with KEK "k1" of "corp" on a host that remembers the datastore.
func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{t: t, backing: t.TempDir(), host: newHost(t), kms: &kms{
		name: "corp", keys: map[string]string{"k1": "one", "k2": "two", "k3": "three"},
	}}
	s.init(s.settings("k1"))
	return s
}

func newHost(t *testing.T) *Host {
	t.Helper()
	return NewHost(filepath.Join(t.TempDir(), "state"))
}

func (s *site) settings(kek string) layout.Settings {
	return layout.Settings{Format: 1, ID: testID, Provider: "corp", KEK: kek, Serial: 1, Encrypt: []string{"*.secret"}}
}

func (s *site) init(set layout.Settings) {
	s.t.Helper()
	if err := s.host.Init(s.backing, set, s.kek(set.KEK)); err != nil {
		s.t.Fatal(err)
	}
}

// kek is a KEK of the KMS.
func (s *site) kek(id string) *keys.KEK {
	s.t.Helper()
	k, err := keys.NewKEK("corp", id, material(s.kms.keys[id]))
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(k.Wipe)
	return k
}

func (s *site) cache() *keys.Cache {
	c := keys.NewCache(slog.New(slog.DiscardHandler), s.kms)
	s.t.Cleanup(func() { c.Close() })
	return c
}

// open opens the datastore on host.
func (s *site) open(host *Host) *Store {
	s.t.Helper()
	st, err := host.Open(s.backing, false)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { st.Close() })
	return st
}

// mount does the steps of a mount on host before serving, and returns the error.
func (s *site) mount(host *Host, trust bool) error {
	s.t.Helper()
	st := s.open(host)
	defer st.Close()
	if err := st.Trust("", "", trust); err != nil {
		return err
	}
	err := st.Verify(s.t.Context(), s.cache())
	if st.Verified() != (err == nil) {
		s.t.Errorf("Verified is %v after %v", st.Verified(), err)
	}
	return err
}

func (s *site) path(name string) string { return filepath.Join(s.backing, Dir, name) }

func (s *site) read() []byte {
	s.t.Helper()
	b, err := os.ReadFile(s.path(SettingsName))
	if err != nil {
		s.t.Fatal(err)
	}
	return b
}

func (s *site) write(b []byte) {
	s.t.Helper()
	if err := os.WriteFile(s.path(SettingsName), b, 0o644); err != nil {
		s.t.Fatal(err)
	}
}

// seal writes settings as an attacker with some key would: well-formed, sealed by mac, and by
// previous unless nil.
func (s *site) seal(set layout.Settings, mac, previous *keys.KEK) {
	s.t.Helper()
	body := set.Encode()
	var old *[32]byte
	if previous != nil {
		m := previous.SealSettings(set.ID, body)
		old = &m
	}
	s.write(layout.AppendSeal(body, mac.SealSettings(set.ID, body), old))
}
