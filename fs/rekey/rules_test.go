package rekey

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"testing"

	"vmcryptfs/fs/datastore"
	"vmcryptfs/keys"
)

// slowKMS is a kms with a hook that runs while a new key is made.
type slowKMS struct {
	*kms
	meanwhile func()
}

func (k slowKMS) Create(ctx context.Context, name string) (*keys.KEK, error) {
	kek, err := k.kms.Create(ctx, name)
	k.meanwhile()
	return kek, err
}

// TestRulesChangedMeanwhile: the change of the KEK keeps rules changed after the rekey began.
func TestRulesChangedMeanwhile(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	rules := []string{"*.log"}
	k1 := s.kek(s.corp, "k1")
	edited := *s.store.Settings()
	edited.Encrypt = rules
	cache := keys.NewCache(slog.New(slog.DiscardHandler), slowKMS{s.corp, func() { must(t, s.store.Change(edited, k1)) }})
	defer cache.Close()
	config := s.config()
	config.Keys = cache
	sum, err := Run(t.Context(), config, Request{Paths: []string{"."}, New: true}, func(Event) error { return nil })
	if err != nil || !sum.Current {
		t.Fatalf("summary %+v, %v, want that the new key is current", sum, err)
	}
	got := s.store.Settings()
	if !slices.Equal(got.Encrypt, rules) || got.KEK == "k1" || got.Serial != 3 {
		t.Errorf("settings %+v, want the rules %q, another KEK than k1, serial 3", got, rules)
	}
	// An edit begun before the rekey is refused: sealing the edit would bring the old KEK back.
	if err := s.store.Change(edited, k1); !errors.Is(err, datastore.ErrChanged) {
		t.Errorf("change under the old KEK: %v, want %v", err, datastore.ErrChanged)
	}
}
