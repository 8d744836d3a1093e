package kmip

import (
	"context"
	"fmt"
	"sync"
	"time"

	"vmcryptfs/keys"
)

// known is what tells the keys that were got from others that have their identifiers later:
// a KMS that was restored empty gives those to new keys, and says of them that they are
// active, while this host may hold the last copy of the old ones.
type known struct {
	mu   sync.Mutex
	keys map[string]fingerprint // by identifier
}

// fingerprint tells one key from another.
type fingerprint struct {
	made  time.Time // Initial Date (KMIP 1.4 §3.23); zero if the server has none
	check [16]byte
}

func (k *known) note(kek *keys.KEK, made time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.keys == nil {
		k.keys = map[string]fingerprint{}
	}
	k.keys[kek.ID] = fingerprint{made, kek.CheckValue()}
}

func (k *known) of(id string) (f fingerprint, ok bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	f, ok = k.keys[id]
	return f, ok
}

// same checks that id, by its attributes now, is still the key that was got under it:
// keys.ErrNotFound. Where its date is another one, a replica's may be, its check value tells;
// of one that is not to be got, such as a destroyed one, that it was made later must do.
func (p *Provider) same(ctx context.Context, s *session, id string, a attributes) error {
	made := a.dates[initialDate]
	was, ok := p.known.of(id)
	opens := a.state.Opens()
	if !ok || made.Equal(was.made) || !opens && !made.After(was.made) {
		return nil
	}
	if opens {
		kek, _, err := p.fetch(ctx, s, id)
		if err != nil {
			return err
		}
		defer kek.Wipe()
		if kek.CheckValue() == was.check {
			p.known.note(kek, made)
			return nil
		}
	}
	return &classified{keys.ErrNotFound, fmt.Errorf("its identifier is that of another key now, made at %s: was the KMS restored?", date(made))}
}
