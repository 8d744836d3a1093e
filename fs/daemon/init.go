package daemon

import (
	"context"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"vmcryptfs/fs/datastore"
	"vmcryptfs/keys"
	"vmcryptfs/layout"
)

// Init makes the directory backing a datastore whose current KEK is the key kek of provider. Where
// kek is empty, the provider makes a key. With adopt, the datastore is a place that encrypts and serves
// cleartext that lies there until it is moved. Settings with a KEK beside an error name a key made
// in vain.
func Init(ctx context.Context, backing string, provider keys.Provider, kek string, adopt bool) (layout.Settings, error) {
	if err := unix.Access(backing, unix.W_OK); err != nil { // before a key is made for nothing
		return layout.Settings{}, &os.PathError{Op: "write to", Path: backing, Err: err}
	}
	s := layout.Settings{Format: 1, ID: keys.NewFileID(), Provider: provider.Name(), Serial: 1}
	if adopt {
		s.Places = []layout.Place{{Path: ".", ID: keys.NewFileID(), Policy: "encrypt", Adopt: true}}
	}
	var key *keys.KEK
	var err error
	if kek == "" {
		key, err = keys.CreateFrom(ctx, provider, LabelOf(s.ID.String()), 1)
	} else {
		key, err = existingKey(ctx, provider, kek)
	}
	if err != nil {
		return layout.Settings{}, fmt.Errorf("key for %s at provider %s: %w", backing, provider.Name(), err)
	}
	defer key.Wipe()
	s.KEK = key.ID
	err = datastore.Init(backing, s, key)
	if err != nil && kek == "" {
		err = fmt.Errorf("key %q was made at provider %q and is not used: %w", key.ID, key.Provider, err)
	}
	return s, err
}

// existingKey gives the key id of the KMS, if the key is fit for new files.
func existingKey(ctx context.Context, provider keys.Provider, id string) (*keys.KEK, error) {
	check, err := provider.Ready(ctx, id)
	if err != nil {
		return nil, err
	}
	kek, _, err := provider.Get(ctx, id, func(k *keys.KEK) bool { return k.CheckValue() == check })
	return kek, err
}
