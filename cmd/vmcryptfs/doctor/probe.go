package doctor

import (
	"errors"
	"fmt"

	"vmcryptfs/keys"
	"vmcryptfs/layout"
)

// errProbe: a key does not do what it is for.
var errProbe = errors.New("what was wrapped does not unwrap to the same")

// tryKey wraps a DEK under kek, as for a file, and unwraps it: nothing is stored. check
// is the key check value that this host knows for the key, or nil.
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
	again, err := kek.Unwrap(&h, 0) // checks the MAC that dek made
	if err != nil {
		return errors.Join(errProbe, err)
	}
	again.Wipe()
	return nil
}
