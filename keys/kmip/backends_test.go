package kmip_test

import (
	"log/slog"
	"testing"

	"vmcryptfs/keys/devkms"
	"vmcryptfs/keys/kmip"
)

func backends() []backend {
	return []backend{
		{"ovh", []string{"", "1.0", "1.4"}, startForeign},
		{"pykmip", []string{"1.0", "1.2", "1.4", "2.0"}, startPyKMIP},
		{"devkms", []string{"", "1.0", "1.1", "1.2", "1.3", "1.4", "2.0"}, startDevKMS},
	}
}

// startDevKMS starts the embedded server; clients find the server by its kms.toml.
func startDevKMS(t *testing.T) kmip.Config {
	server, err := devkms.Start(t.Context(), t.TempDir(), "", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error("close:", err)
		}
	})
	configs, err := kmip.LoadConfig(server.ConfigPath())
	if err != nil {
		t.Fatal(err)
	}
	configs[0].Timeout = patience
	return configs[0]
}
