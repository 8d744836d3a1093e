package datastore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"path/filepath"

	"vmcryptfs/byname"
	"vmcryptfs/keys"
	"vmcryptfs/layout"
)

// Change seals changed settings under kek, the current KEK, with the next serial, and writes the
// settings atomically and durably. next has the same id, provider and KEK, and the Serial of the
// settings from which next was made. The error is ErrChanged where the Store has other settings by
// now, or where the file differs from the settings last read or written by the Store. The current
// settings must carry a seal of kek (otherwise keys.ErrSeal): an edit must not launder settings
// that someone else wrote into BACKING.
//
// Of two concurrent changes, ChangeKEK included, one succeeds and the other fails with ErrChanged.
// A Store opened without the lock takes the lock during the call; while another process holds the
// lock, as a mount does, the error is ErrBusy.
//
// The seal under an older KEK (mac_previous) is dropped, since the seal covers other bytes. A host
// that last saw the datastore under the older KEK then needs --trust.
func (s *Store) Change(next layout.Settings, kek *keys.KEK) error {
	if err := s.change(next, kek, kek); err != nil {
		return fmt.Errorf("change settings of datastore %s: %w", s.path, err)
	}
	return nil
}

// ChangeKEK is Change to a new current KEK, kek, named by next. previous, the KEK so far, seals
// the new settings too, so that hosts with previous in memory accept the settings.
func (s *Store) ChangeKEK(next layout.Settings, kek, previous *keys.KEK) error {
	if err := s.change(next, kek, previous); err != nil {
		return fmt.Errorf("change KEK of datastore %s: %w", s.path, err)
	}
	return nil
}

// Edit seals what edit makes of a copy of the current settings, under their KEK from cache, as
// Change does. Edits of one Store follow one another, so none is lost. edit is called with no other
// change under way, again where the KEK was changed meanwhile, and gives up the change by an error,
// which Edit returns. An edit that alters nothing writes nothing. Errors are edit's, those of
// Cache.Use, and those of Change.
func (s *Store) Edit(ctx context.Context, cache *keys.Cache, edit func(*layout.Settings) error) error {
	for {
		ref := s.KEK()
		ref.Check = nil // the seal proves the key
		again := false
		err := cache.Use(ctx, ref, func(kek *keys.KEK) (err error) {
			again, err = s.edit(kek, edit)
			return err
		})
		if err != nil {
			return fmt.Errorf("change settings of datastore %s: %w", s.path, err)
		}
		if !again {
			return nil
		}
	}
}

// edit is Edit under kek; again reports that kek is no longer the current KEK.
func (s *Store) edit(kek *keys.KEK, edit func(*layout.Settings) error) (again bool, err error) {
	s.changes.Lock()
	defer s.changes.Unlock()
	old := s.Settings()
	if kek.Provider != old.Provider || kek.ID != old.KEK {
		return true, nil
	}
	next := old.Clone()
	if err := edit(&next); err != nil {
		return false, err
	}
	if bytes.Equal(next.Encode(), old.Encode()) {
		return false, nil
	}
	return false, s.replace(next, kek, kek)
}

func (s *Store) change(next layout.Settings, kek, current *keys.KEK) error {
	s.changes.Lock()
	defer s.changes.Unlock()
	if next.Serial != s.Settings().Serial {
		return ErrChanged
	}
	return s.replace(next, kek, current)
}

// replace writes next in the place of the current settings. s.changes is held.
func (s *Store) replace(next layout.Settings, kek, current *keys.KEK) error {
	if !s.locked {
		if err := s.lock(); err != nil {
			return err
		}
		defer s.unlock()
	}
	s.mu.Lock()
	old, oldText := s.sealed, s.text
	s.mu.Unlock()
	text, _, err := readSettings(s.dir)
	if err != nil {
		return err
	}
	if !bytes.Equal(text, oldText) {
		return ErrChanged
	}
	if err := checkNamed(&old.Settings, current); err != nil {
		return fmt.Errorf("current settings: %w", err)
	}
	if err := current.VerifySettings(old); err != nil {
		return err
	}
	sealed, err := sealNext(&old.Settings, next, kek, current)
	if err != nil {
		return err
	}
	text = layout.AppendSeal(sealed.Body, sealed.MAC, sealed.Previous)
	if len(text) > layout.MaxSettings {
		return fmt.Errorf("settings of %d bytes, more than %d", len(text), layout.MaxSettings)
	}
	return s.commit(sealed, text, kek)
}

// sealNext is next as the successor of old, sealed.
func sealNext(old *layout.Settings, next layout.Settings, kek, current *keys.KEK) (*layout.Sealed, error) {
	if next.ID != old.ID {
		return nil, fmt.Errorf("another id, %s", next.ID)
	}
	if old.Serial >= math.MaxInt64 { // TOML has no greater integers
		return nil, errors.New("the serial can grow no more")
	}
	next.Serial = old.Serial + 1
	if err := checkNamed(&next, kek); err != nil {
		return nil, err
	}
	body := next.Encode()
	sealed := &layout.Sealed{Settings: next, Body: body, MAC: kek.SealSettings(next.ID, body)}
	if kek.Provider != current.Provider || kek.ID != current.ID {
		previous := current.SealSettings(next.ID, body)
		sealed.Previous = &previous
	}
	return sealed, nil
}

// commit writes sealed settings and then this host's memory of the settings. In this order a crash
// between the two is harmless: an older memory accepts newer settings, but not the reverse.
func (s *Store) commit(sealed *layout.Sealed, text []byte, kek *keys.KEK) error {
	if err := byname.Replace(s.dir, SettingsName, text, 0o644); err != nil {
		return err
	}
	ref := kekRef(&sealed.Settings)
	check := kek.CheckValue()
	ref.Check = &check
	t := &trust{ref: ref, forced: true}
	s.mu.Lock()
	s.text, s.sealed, s.trust, s.verified = text, sealed, t, true
	s.mu.Unlock()
	if err := s.rememberVerified(&sealed.Settings, check, t); err != nil {
		return fmt.Errorf("the settings are changed, but this host cannot remember them: %w", err)
	}
	return nil
}

// CheckUnchanged returns ErrChanged if the settings file is not what the Store read or wrote
// last; then Change is refused too. A file that cannot be read gives another error.
func (s *Store) CheckUnchanged() error {
	s.changes.Lock()
	defer s.changes.Unlock()
	text, err := readFile(s.dir, SettingsName, layout.MaxSettings)
	if err != nil {
		return fmt.Errorf("%s: %w", filepath.Join(s.path, Dir, SettingsName), err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !bytes.Equal(text, s.text) {
		return fmt.Errorf("%s is not what was read: %w", filepath.Join(s.path, Dir, SettingsName), ErrChanged)
	}
	return nil
}
