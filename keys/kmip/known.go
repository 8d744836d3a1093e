package kmip

import (
	"context"
	"fmt"
	"sync"
	"time"

	"vmcryptfs/keys"
)

// known tells fetched keys from other keys that have the same identifiers later. A KMS restored
// empty gives old identifiers to new keys and reports the new keys as active, while this host may
// hold the last copy of the old ones.
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

// same checks by the present attributes that id still names the key once fetched under id, else
// keys.ErrNotFound. With another Initial Date, as a replica may have, the check value decides.
// The check value of a destroyed key, or another that cannot be fetched, is unknown; then a later
// Initial Date decides.
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
