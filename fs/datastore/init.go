package datastore

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"vmcryptfs/byname"
	"vmcryptfs/keys"
	"vmcryptfs/layout"
)

// Init makes backing, an existing directory, a datastore: settings sealed under kek and
// remembered by this host. Existing files stay unchanged. ErrExists: backing is a datastore
// already. ErrBusy: another process is making one. s must name kek.
//
// The settings file comes last, whole and durable: after an earlier crash, backing is no
// datastore, and Init can be called again.
func Init(backing string, s layout.Settings, kek *keys.KEK) error {
	h, err := LocalHost()
	if err != nil {
		return err
	}
	return h.Init(backing, s, kek)
}

// Init is the function Init, with the memory of h.
func (h *Host) Init(backing string, s layout.Settings, kek *keys.KEK) error {
	if err := checkNamed(&s, kek); err != nil {
		return fmt.Errorf("settings of datastore %s: %w", backing, err)
	}
	store, err := h.openBacking(backing)
	if err != nil {
		return err
	}
	defer store.Close()
	if err := store.init(s, kek); err != nil {
		return fmt.Errorf("make %s a datastore: %w", store.path, err)
	}
	return nil
}

func (s *Store) init(settings layout.Settings, kek *keys.KEK) error {
	if err := unix.Mkdirat(s.fd, Dir, 0o755); err != nil && !errors.Is(err, unix.EEXIST) {
		return &os.PathError{Op: "make directory", Path: Dir, Err: err}
	}
	var err error
	if s.dir, err = openDir(s.fd, Dir); err != nil {
		return err
	}
	if err := s.lock(); err != nil {
		return err
	}
	var st unix.Stat_t
	err = unix.Fstatat(s.dir, SettingsName, &st, unix.AT_SYMLINK_NOFOLLOW)
	if err == nil {
		return ErrExists
	}
	if !errors.Is(err, unix.ENOENT) {
		return &os.PathError{Op: "stat", Path: SettingsName, Err: err}
	}
	// The memory comes before the settings: if the memory cannot be written, no datastore was
	// made. An older record of this place is of a datastore that no longer exists.
	accept := func(*record) error { return nil }
	if err := s.host.remember(newRecord(s.location, &settings, kek.CheckValue()), s.location, settings.ID, accept); err != nil {
		return err
	}
	body := settings.Encode()
	text := layout.AppendSeal(body, kek.SealSettings(settings.ID, body), nil)
	if err := byname.Replace(s.dir, SettingsName, text, 0o644); err != nil {
		return err
	}
	// The name of Dir itself.
	if err := unix.Fsync(s.fd); err != nil {
		return &os.PathError{Op: "sync", Path: s.path, Err: err}
	}
	return nil
}

// checkNamed checks that s is whole and names kek: a seal under another key could never be
// checked.
func checkNamed(s *layout.Settings, kek *keys.KEK) error {
	if s.Provider != kek.Provider || s.KEK != kek.ID {
		return fmt.Errorf("they name KEK %q of provider %q, not %s", s.KEK, s.Provider, kek)
	}
	return s.Check()
}
