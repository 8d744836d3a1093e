package datastore

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"vmcryptfs/keys"
	"vmcryptfs/layout"
)

// trust is why the settings may be the right ones, before the seal is checked.
type trust struct {
	ref      keys.Ref  // the current KEK, with the remembered check value if there is one
	previous *keys.Ref // the remembered KEK, whose seal must vouch for the current one
	forced   bool      // somebody said so
	copied   bool      // of a copy: nothing is remembered
}

// Trust compares the settings with this host's memory, and with pins (-o datastore=ID,kek=ID;
// empty: none): ErrUntrusted. trust accepts settings that differ from the memory (never from a
// pin), and Verify then remembers the settings.
//
// A datastore never verified by this host is trusted: there is nothing to compare. A KEK other
// than the remembered one is accepted here if the settings have a mac_previous; Verify checks
// that mac_previous is under the remembered KEK.
func (s *Store) Trust(pinID, pinKEK string, trust bool) error {
	return s.accept(s.compare(s.Settings(), pinID, pinKEK, trust))
}

// accept adopts the result of a comparison.
func (s *Store) accept(t *trust, err error) error {
	if err != nil {
		return fmt.Errorf("datastore %s: %w", s.path, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.trust = t
	return nil
}

func (s *Store) compare(settings *layout.Settings, pinID, pinKEK string, forced bool) (*trust, error) {
	if err := checkPins(settings, pinID, pinKEK); err != nil {
		return nil, err
	}
	t := &trust{ref: kekRef(settings), forced: forced}
	if forced {
		return t, nil
	}
	r, err := s.host.recall(s.location, settings.ID)
	if err != nil || r == nil {
		return t, err
	}
	known, err := r.kek()
	if err != nil {
		return nil, err
	}
	if err := s.checkRecord(r); err != nil {
		return nil, err
	}
	if r.Provider == settings.Provider && r.KEK == settings.KEK {
		t.ref.Check = known.Check
	} else {
		t.previous = &known
	}
	return t, nil
}

// checkPins compares settings with the administrator's pins in fstab.
func checkPins(s *layout.Settings, pinID, pinKEK string) error {
	if pinID != "" {
		id, err := layout.ParseFileID(pinID)
		if err != nil {
			return fmt.Errorf("option datastore=%s: %w", pinID, err)
		}
		if id != s.ID {
			return fmt.Errorf("its id is %s and the option datastore=%s: %w", s.ID, pinID, ErrUntrusted)
		}
	}
	if pinKEK != "" && pinKEK != s.KEK {
		return fmt.Errorf("its KEK is %q and the option kek=%q: %w", s.KEK, pinKEK, ErrUntrusted)
	}
	return nil
}

// checkRecord checks that the settings may follow the remembered ones.
func (s *Store) checkRecord(r *record) error {
	s.mu.Lock()
	sealed := s.sealed
	s.mu.Unlock()
	settings := &sealed.Settings
	why := ""
	switch {
	case r.ID != settings.ID.String():
		why = fmt.Sprintf("its id is %s and was %s", settings.ID, r.ID)
	case settings.Serial < r.Serial:
		why = fmt.Sprintf("its settings have serial %d, older than %d", settings.Serial, r.Serial)
	case r.Provider == settings.Provider && r.KEK == settings.KEK:
		return nil
	case sealed.Previous == nil || settings.Serial == r.Serial:
		why = fmt.Sprintf("its KEK is %q of provider %q and was %q of %q", settings.KEK, settings.Provider, r.KEK, r.Provider)
	default:
		return nil
	}
	advice := "if that is right, accept it with --trust"
	if r.ID == settings.ID.String() {
		advice += "; if it is a copy, such as a snapshot, mount it with -o ro,copy"
	}
	return fmt.Errorf("%w: %s; %s", ErrUntrusted, why, advice)
}

// Verify checks the seal with the KEK from cache, and remembers the datastore. Errors:
// keys.ErrSeal, or a keys.ErrNoKey that says why the seal cannot be checked now. Without a Trust
// before, Verify calls Trust("", "", false). After a success, Verify costs nothing.
func (s *Store) Verify(ctx context.Context, cache *keys.Cache) error {
	s.mu.Lock()
	verified, trusted := s.verified, s.trust != nil
	s.mu.Unlock()
	if verified {
		return nil
	}
	if !trusted {
		if err := s.Trust("", "", false); err != nil {
			return err
		}
	}
	err := s.verify(ctx, cache)
	if err == nil {
		return nil
	}
	err = fmt.Errorf("verify %s: %w", filepath.Join(s.path, Dir, SettingsName), err)
	if errors.Is(err, keys.ErrSeal) && !errors.Is(err, ErrUntrusted) {
		err = fmt.Errorf("%w: the file was changed without the datastore's KEK; put back what was sealed last", err)
	}
	return err
}

func (s *Store) verify(ctx context.Context, cache *keys.Cache) error {
	s.mu.Lock()
	sealed, t := s.sealed, s.trust
	s.mu.Unlock()
	var check [16]byte
	ref := t.ref
	if ref.Check == nil { // then the seal tells the right KEK, where servers give several
		ref.Proves = func(k *keys.KEK) bool { return k.VerifySettings(sealed) == nil }
	}
	err := cache.Use(ctx, ref, func(k *keys.KEK) error {
		check = k.CheckValue()
		return k.VerifySettings(sealed)
	})
	if ref.Proves != nil && errors.Is(err, keys.ErrWrongKey) {
		return fmt.Errorf("%w, or is not by KEK %q of provider %q: %v", keys.ErrSeal, ref.ID, ref.Provider, err)
	}
	if err != nil {
		return err
	}
	if t.previous != nil {
		if err := verifyPrevious(ctx, cache, *t.previous, sealed); err != nil {
			return err
		}
	}
	return s.prove(sealed, check, t)
}

// prove takes up that sealed are the settings and that t held, unless Change has changed the
// settings meanwhile. Change proves and remembers its own, which older ones must not replace in
// this host's memory.
func (s *Store) prove(sealed *layout.Sealed, check [16]byte, t *trust) error {
	s.changes.Lock()
	defer s.changes.Unlock()
	s.mu.Lock()
	changed := s.sealed != sealed
	s.mu.Unlock()
	if changed {
		return nil
	}
	if err := s.rememberVerified(&sealed.Settings, check, t); err != nil {
		return err
	}
	proven := *t
	proven.ref.Check = &check
	s.mu.Lock()
	defer s.mu.Unlock()
	s.trust, s.verified = &proven, true
	return nil
}

// KEK returns the current KEK's name, with the check value proven by Verify, or before Verify the
// remembered one, if any. New files are wrapped by this KEK and no other: a KMS with another key
// under the identifier gives keys.ErrWrongKey.
func (s *Store) KEK() keys.Ref {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.trust == nil {
		return kekRef(&s.sealed.Settings)
	}
	return s.trust.ref
}

// verifyPrevious lets the KEK known to this host vouch for the current one.
func verifyPrevious(ctx context.Context, cache *keys.Cache, known keys.Ref, sealed *layout.Sealed) error {
	err := cache.Use(ctx, known, func(k *keys.KEK) error { return k.VerifySettings(sealed) })
	switch {
	case err == nil:
		return nil
	case errors.Is(err, keys.ErrSeal):
		// The seal was made without the known KEK, or after more than one change missed by this
		// host.
		return fmt.Errorf("%w: its KEK is %q of provider %q, and the one this host knows, %q of %q, does not vouch for it (%w); compare id and KEK, then accept them with --trust",
			ErrUntrusted, sealed.Settings.KEK, sealed.Settings.Provider, known.ID, known.Provider, err)
	default:
		return fmt.Errorf("the KEK was changed, and the one it was cannot vouch for it (--trust does without): %w", err)
	}
}

// rememberVerified stores proven settings in this host's memory.
func (s *Store) rememberVerified(settings *layout.Settings, check [16]byte, t *trust) error {
	if t.copied {
		return nil
	}
	return s.host.remember(newRecord(s.location, settings, check), s.location, settings.ID, func(r *record) error {
		if r == nil || t.forced {
			return nil
		}
		return s.checkRecord(r)
	})
}
