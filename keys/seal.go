package keys

import (
	"crypto/hmac"
	"fmt"

	"vmcryptfs/layout"
)

// SealSettings is the settings' seal: the MAC of body under k (design §5).
func (k *KEK) SealSettings(id layout.FileID, body []byte) [32]byte {
	key, err := k.derive(id[:], settingsLabel)
	if err != nil {
		panic("keys: derive key: " + err.Error()) // only for lengths unused here
	}
	defer clear(key)
	return hmacSum(key, body)
}

// VerifySettings checks s in constant time: under k, mac; or, when k is not the
// current KEK, mac_previous. ErrSeal otherwise.
func (k *KEK) VerifySettings(s *layout.Sealed) error {
	name, seal := "mac", &s.MAC
	if k.ID != s.Settings.KEK || k.Provider != s.Settings.Provider {
		name, seal = "mac_previous", s.Previous
		if seal == nil {
			return fmt.Errorf("settings of datastore %s have no mac_previous for %s: %w", s.Settings.ID, k, ErrSeal)
		}
	}
	if mac := k.SealSettings(s.Settings.ID, s.Body); !hmac.Equal(mac[:], seal[:]) {
		return fmt.Errorf("%s of datastore %s under %s: %w", name, s.Settings.ID, k, ErrSeal)
	}
	return nil
}
