package daemon

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	vmfs "vmcryptfs/fs"
	"vmcryptfs/fs/admin"
	"vmcryptfs/fs/datastore"
	"vmcryptfs/fs/rekey"
	"vmcryptfs/fs/wire"
	"vmcryptfs/keys"
	"vmcryptfs/layout"
)

// settingsSite is a daemon over a datastore with a development KMS, before it mounts.
type settingsSite struct {
	*daemon
	t      *testing.T
	logged *bytes.Buffer
}

func newSettingsSite(t *testing.T) *settingsSite {
	t.Setenv("VMCRYPTFS_DEVKMS", filepath.Join(t.TempDir(), "devkms"))
	s := &settingsSite{t: t, logged: new(bytes.Buffer), daemon: &daemon{
		config: Config{Backing: t.TempDir(), Mountpoint: t.TempDir(), Keys: KeyConfig{Dev: true}},
	}}
	s.log = slog.New(slog.NewTextHandler(s.logged, nil))
	var err error
	if s.keys, err = OpenKeys(t.Context(), s.config.Keys, s.log); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.keys.Close)
	s.must(s.openStore(t.Context()))
	t.Cleanup(func() { s.store.Close() })
	s.must(s.trust(t.Context()))
	if s.fs, err = vmfs.New(vmfs.Config{Store: s.store, Keys: s.keys.Cache, Log: s.log, Seal: s.editSettings}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.fs.Close() })
	s.openMoves()
	t.Cleanup(s.closeMoves)
	return s
}

func (s *settingsSite) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// path is the settings file.
func (s *settingsSite) path() string {
	return filepath.Join(s.store.Path(), datastore.Dir, datastore.SettingsName)
}

// request encrypts pattern, beginning from the settings of serial.
func request(serial uint64, pattern string) admin.SettingsRequest {
	return admin.SettingsRequest{Serial: serial, Encrypt: []string{pattern}, Clear: []string{}}
}

func TestChangeSettings(t *testing.T) {
	s := newSettingsSite(t)
	old, err := os.ReadFile(s.path())
	s.must(err)
	from, err := s.Settings(t.Context())
	if err != nil || from.Serial != 1 || from.KEK == "" {
		t.Fatalf("settings %+v, %v", from, err)
	}
	serial, err := s.ChangeSettings(t.Context(), request(from.Serial, "*.log"))
	if err != nil || serial != 2 {
		t.Fatalf("serial %d, %v, want 2", serial, err)
	}
	if got := s.store.Settings(); got.Serial != 2 || !slices.Equal(got.Encrypt, []string{"*.log"}) || got.KEK != from.KEK {
		t.Errorf("settings %+v", got)
	}
	if !strings.Contains(s.logged.String(), "settings changed") {
		t.Errorf("log %q", s.logged)
	}
	// The next mount finds the seal good, and this host remembers the serial: older settings are a
	// replay.
	s.must(s.store.Close())
	again, err := datastore.Open(s.config.Backing, true)
	s.must(err)
	s.must(errors.Join(again.Trust("", "", false), again.Verify(t.Context(), s.keys.Cache)))
	if got := again.Settings().Serial; got != 2 {
		t.Errorf("read back serial %d, want 2", got)
	}
	s.must(again.Close())
	s.must(os.WriteFile(s.path(), old, 0o644))
	again, err = datastore.Open(s.config.Backing, true)
	s.must(err)
	defer again.Close()
	if err := again.Trust("", "", false); !errors.Is(err, datastore.ErrUntrusted) {
		t.Errorf("older settings: %v, want %v", err, datastore.ErrUntrusted)
	}
}

// settingsRefusals are states in which settings are not changed.
var settingsRefusals = []struct {
	name    string
	prepare func(s *settingsSite) error
	request admin.SettingsRequest
	want    error
	early   bool // Settings says so too
}{
	{"made from others", func(*settingsSite) error { return nil }, request(2, "*.log"), datastore.ErrChanged, false},
	{"no pattern", func(*settingsSite) error { return nil }, request(1, "a/b"), wire.ErrRequest, false},
	{"changed since", func(s *settingsSite) error {
		_, err := s.ChangeSettings(s.t.Context(), request(1, "*.iso"))
		return err
	}, request(1, "*.log"), datastore.ErrChanged, false},
	{"the KEK was changed since", func(s *settingsSite) error {
		_, err := s.Rekey(s.t.Context(), rekey.Request{Paths: []string{"."}, New: true}, func(rekey.Event) error { return nil })
		return err
	}, request(1, "*.log"), datastore.ErrChanged, false},
	{"the file is another", func(s *settingsSite) error {
		text, err := os.ReadFile(s.path())
		return errors.Join(err, os.WriteFile(s.path(), bytes.Replace(text, []byte("serial = 1"), []byte("serial = 2"), 1), 0o644))
	}, request(1, "*.log"), datastore.ErrChanged, true},
	{"the file is gone", func(s *settingsSite) error { return os.Remove(s.path()) }, request(1, "*.log"), unix.ENOENT, true},
	{"read-only", func(s *settingsSite) error { return s.fs.SetReadOnly(true) }, request(1, "*.log"), unix.EROFS, true},
	{"locked", func(s *settingsSite) error { s.keys.Cache.Lock(); return nil }, request(1, "*.log"), keys.ErrLocked, true},
}

func TestChangeSettingsRefuses(t *testing.T) {
	for _, c := range settingsRefusals {
		t.Run(c.name, func(t *testing.T) {
			s := newSettingsSite(t)
			s.must(c.prepare(s))
			before := s.store.Settings()
			text, _ := os.ReadFile(s.path())
			if _, err := s.Settings(t.Context()); c.early != (err != nil) || c.early && !errors.Is(err, c.want) {
				t.Errorf("Settings: %v, want %v: %t", err, c.want, c.early)
			}
			if _, err := s.ChangeSettings(t.Context(), c.request); !errors.Is(err, c.want) {
				t.Errorf("error %v, want %v", err, c.want)
			}
			if after, _ := os.ReadFile(s.path()); s.store.Settings() != before || !bytes.Equal(after, text) {
				t.Errorf("changed: %+v, %q", s.store.Settings(), after)
			}
		})
	}
}

// TestChangeSettingsLong: settings that would not be read again are not written.
func TestChangeSettingsLong(t *testing.T) {
	s := newSettingsSite(t)
	r := request(1, "*.log")
	for range layout.MaxSettings / 8 {
		r.Encrypt = append(r.Encrypt, "*.abcdef")
	}
	if _, err := s.ChangeSettings(t.Context(), r); err == nil || s.store.Settings().Serial != 1 {
		t.Errorf("%v, serial %d, want an error and 1", err, s.store.Settings().Serial)
	}
}

// TestChangeSettingsUnverified: while the KMS gives no key nothing is sealed; when it does the
// settings are verified on the way.
func TestChangeSettingsUnverified(t *testing.T) {
	s := newSettingsSite(t)
	s.must(s.store.Close())
	s.keys.Cache.Lock()
	var err error
	s.store, err = datastore.Open(s.config.Backing, true)
	s.must(err)
	s.must(s.trust(t.Context()))
	if s.store.Verified() {
		t.Fatal("verified without a key")
	}
	for _, err := range []error{
		func() error { _, err := s.Settings(t.Context()); return err }(),
		func() error { _, err := s.ChangeSettings(t.Context(), request(1, "*.log")); return err }(),
	} {
		if !errors.Is(err, keys.ErrNoKey) || !strings.Contains(err.Error(), "not verified") {
			t.Errorf("%v, want that they are not verified", err)
		}
	}
	s.keys.Cache.Unlock()
	if serial, err := s.ChangeSettings(t.Context(), request(1, "*.log")); err != nil || serial != 2 {
		t.Errorf("with the key: serial %d, %v", serial, err)
	}
}

// TestChangeSettingsForgetful: a change that this host could not remember is a change.
func TestChangeSettingsForgetful(t *testing.T) {
	s := newSettingsSite(t)
	state, err := datastore.StateDir()
	s.must(err)
	memory := filepath.Join(state, "datastores.toml")
	text, err := os.ReadFile(memory)
	s.must(err)
	s.must(os.WriteFile(memory, []byte("nonsense"), 0o600))
	defer os.WriteFile(memory, text, 0o600)
	_, err = s.ChangeSettings(t.Context(), request(1, "*.log"))
	if err == nil || !strings.Contains(err.Error(), "are changed, but") || s.store.Settings().Serial != 2 {
		t.Errorf("%v, serial %d, want that they are changed, and 2", err, s.store.Settings().Serial)
	}
}

// TestEditSettings: fs changes places through the daemon, but for a mount that is read-only; and a path that a cut-off
// rename left goes once the settings are proven.
func TestEditSettings(t *testing.T) {
	s := newSettingsSite(t)
	place := layout.Place{Path: "b", ID: keys.NewFileID(), Policy: "encrypt"}
	double := place
	double.Path = "a"
	s.must(os.Mkdir(filepath.Join(s.config.Backing, "b"), 0o755))
	s.must(s.editSettings(t.Context(), func(next *layout.Settings) error {
		next.Places = append(next.Places, double, place)
		return nil
	}))
	s.settlePlaces(t.Context())
	if p := s.store.Settings().Places; len(p) != 1 || p[0].Path != "b" {
		t.Errorf("places %v", p)
	}
	s.must(s.fs.SetReadOnly(true))
	err := s.editSettings(t.Context(), func(*layout.Settings) error {
		t.Error("edited, and the mount is read-only")
		return nil
	})
	if !errors.Is(err, unix.EROFS) {
		t.Errorf("read-only: %v", err)
	}
}
