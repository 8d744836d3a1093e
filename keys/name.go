package keys

import (
	"context"
	"errors"
)

// MostTaken is how many names in a row may be taken at a KMS by keys invisible to the client:
// destroyed ones, or ones that the client has no right to see.
const MostTaken = 8

// CreateFrom makes a KEK at p under the first accepted name, from number n on, with up to
// MostTaken tries.
func CreateFrom(ctx context.Context, p Provider, label func(n uint64) string, n uint64) (kek *KEK, err error) {
	for end := n + MostTaken; n < end; n++ {
		kek, err = p.Create(ctx, label(n))
		if !errors.Is(err, ErrNameTaken) {
			break
		}
	}
	return kek, err
}
