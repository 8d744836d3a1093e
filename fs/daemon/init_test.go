package daemon

import (
	"errors"
	"log/slog"
	"testing"

	"vmcryptfs/fs/datastore"
	"vmcryptfs/keys"
	"vmcryptfs/keys/devkms"
	"vmcryptfs/keys/kmip"
)

// A key unfit for new files makes no datastore.
func TestInitWithEndedKey(t *testing.T) {
	t.Parallel()
	server, err := devkms.Start(t.Context(), t.TempDir(), "", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	source, err := OpenKeys(t.Context(), KeyConfig{KMS: server.ConfigPath()}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer source.Close()
	provider := source.Cache.Provider("dev").(*kmip.Provider)
	for name, reason := range map[string]kmip.RevocationReason{"deactivated": kmip.Superseded, "compromised": kmip.KeyCompromise} {
		kek, err := provider.Create(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		kek.Wipe()
		backing := t.TempDir()
		if err := provider.Revoke(t.Context(), kek.ID, reason); err != nil {
			t.Fatal(err)
		}
		if _, err := Init(t.Context(), backing, provider, kek.ID, false); !errors.Is(err, keys.ErrKeyState) {
			t.Errorf("init with a key that is %s: %v, want %v", name, err, keys.ErrKeyState)
		}
		if _, err := datastore.Open(backing, false); !errors.Is(err, datastore.ErrNone) {
			t.Errorf("with a key that is %s: %v, want %v", name, err, datastore.ErrNone)
		}
	}
}
