package main

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"vmcryptfs/keys"
	"vmcryptfs/keys/devkms"
)

// TestReloadFirst: a process that found no kms.toml takes up the first one, and says what is
// wrong with it until it is right.
func TestReloadFirst(t *testing.T) {
	t.Parallel()
	log := slog.New(slog.DiscardHandler)
	server, err := devkms.Start(t.Context(), t.TempDir(), "", log)
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	text, err := os.ReadFile(server.ConfigPath())
	if err != nil {
		t.Fatal(err)
	}
	text = []byte(strings.ReplaceAll(string(text), `= "c`, `= "`+filepath.Dir(server.ConfigPath())+`/c`))
	path := filepath.Join(t.TempDir(), "kms.toml")
	s := &keySource{cache: keys.NewCache(log)}
	defer s.close()
	if configs, err := s.loadConfig(path, false); err != nil || len(configs) > 0 {
		t.Fatalf("%v, %v", configs, err)
	}
	check := func(providers, warnings int) {
		t.Helper()
		s.reload(log)
		if p, w := s.names(), s.warnings(); len(p) != providers || len(w) != warnings || (s.note() == "") != (providers > 0) {
			t.Errorf("providers %q, warnings %q, note %q; want %d and %d", p, w, s.note(), providers, warnings)
		}
	}
	check(0, 0)
	for _, c := range []struct {
		text                string
		providers, warnings int
	}{{string(text[:40]), 0, 1}, {string(text), 1, 0}, {"", 1, 1}, {string(text), 1, 0}} {
		if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		check(c.providers, c.warnings)
	}
	if _, err := s.provider(""); err != nil {
		t.Error(err)
	}
}
