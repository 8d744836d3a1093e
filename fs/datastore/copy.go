package datastore

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"vmcryptfs/byname"
	"vmcryptfs/keys"
	"vmcryptfs/layout"
)

// TrustCopy is Trust for settings of a copy, such as a snapshot, used for reading only. The
// settings may be older than this host's memory of the datastore. Verify then remembers nothing:
// this host knows the original, and continues to refuse an older copy in the original's place.
// The KMS vouches for the seal as ever. At a path where this host knows another datastore,
// settings are no copy's: ErrUntrusted, unless trust.
func (s *Store) TrustCopy(pinID, pinKEK string, trust bool) error {
	return s.accept(s.compareCopy(s.Settings(), pinID, pinKEK, trust))
}

func (s *Store) compareCopy(settings *layout.Settings, pinID, pinKEK string, forced bool) (*trust, error) {
	if err := checkPins(settings, pinID, pinKEK); err != nil {
		return nil, err
	}
	t := &trust{ref: kekRef(settings), forced: forced, copied: true}
	all, err := s.host.records()
	if err != nil {
		return nil, err
	}
	for _, r := range all {
		if r.Path == s.location.path && r.ID != settings.ID.String() && !forced {
			return nil, fmt.Errorf("%w: its id is %s and was %s; if that is right, accept it with --trust", ErrUntrusted, settings.ID, r.ID)
		}
		if r.ID != settings.ID.String() || r.Provider != settings.Provider || r.KEK != settings.KEK {
			continue
		}
		known, err := r.kek()
		if err != nil {
			return nil, err
		}
		t.ref = keys.Ref{Provider: r.Provider, ID: r.KEK, Check: known.Check}
	}
	return t, nil
}

// records returns everything remembered by this host.
func (h *Host) records() ([]record, error) {
	dir, err := byname.PrivateDir(h.state)
	if errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("memory of datastores: %w", err)
	}
	defer dir.Close()
	return h.readMemory(int(dir.Fd()))
}

// CopyName returns a name that differs from the original's and from other copies' of the
// datastore: the datastore's id and eight digits from BACKING's path.
func (s *Store) CopyName() string {
	sum := sha256.Sum256([]byte(s.path))
	return s.Settings().ID.String() + "-" + hex.EncodeToString(sum[:4])
}

// IsCopyName reports whether name is a CopyName of the datastore id.
func IsCopyName(name, id string) bool {
	digits, ok := strings.CutPrefix(name, id+"-")
	b, err := hex.DecodeString(digits)
	return ok && err == nil && len(b) == 4
}
