package keys

import (
	"context"
	"errors"
)

// MostTaken is how many names in a row may be taken at a KMS by keys that its client does
// not find: destroyed ones, or ones that are not for it to see.
const MostTaken = 8

// CreateFrom has p make a KEK under the first name, from number n on, that it takes. It
// tries MostTaken of them.
func CreateFrom(ctx context.Context, p Provider, label func(n uint64) string, n uint64) (kek *KEK, err error) {
	for end := n + MostTaken; n < end; n++ {
		kek, err = p.Create(ctx, label(n))
		if !errors.Is(err, ErrNameTaken) {
			break
		}
	}
	return kek, err
}
