package doctor

import (
	"errors"
	"fmt"

	"vmcryptfs/keys"
	"vmcryptfs/layout"
)

// errProbe says that a key does not unwrap its own wrap.
var errProbe = errors.New("what was wrapped does not unwrap to the same")

// tryKey wraps a DEK under kek, as for a file, and unwraps the DEK again. Nothing is stored. check
// is this host's key check value for the key, or nil.
func tryKey(kek *keys.KEK, check *[16]byte) error {
	if check != nil && *check != kek.CheckValue() {
		return fmt.Errorf("%s: %w", kek, keys.ErrWrongKey)
	}
	dek, err := keys.NewDEK()
	if err != nil {
		return err
	}
	defer dek.Wipe()
	h := layout.Header{Generation: 1, FileID: keys.NewFileID()}
	if err := kek.Wrap(&h, 0, dek); err != nil {
		return err
	}
	dek.Seal(&h)
	again, err := kek.Unwrap(&h, 0) // Unwrap checks the MAC made by dek
	if err != nil {
		return errors.Join(errProbe, err)
	}
	again.Wipe()
	return nil
}
