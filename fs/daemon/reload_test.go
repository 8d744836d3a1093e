package daemon

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vmcryptfs/keys"
	"vmcryptfs/keys/devkms"
)

// TestReloadFirst: a process started without a kms.toml uses the first one, and reports a mistake
// in the file until the mistake is mended.
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
	s := newKeySource()
	s.Cache = keys.NewCache(log)
	defer s.Close()
	if configs, err := s.loadConfig(path, false); err != nil || len(configs) > 0 {
		t.Fatalf("%v, %v", configs, err)
	}
	check := func(providers, warnings int) {
		t.Helper()
		s.reload(t.Context(), log)
		if p, w := s.names(), s.warnings(); len(p) != providers || len(w) != warnings || (s.Note() == "") != (providers > 0) {
			t.Errorf("providers %q, warnings %q, note %q; want %d and %d", p, w, s.Note(), providers, warnings)
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
	if _, err := s.Choose(""); err != nil {
		t.Error(err)
	}
}

// TestReloadNeverWaits: a kms.toml that is no regular file is refused without waiting. A reading
// that hangs does not delay the end.
func TestReloadNeverWaits(t *testing.T) {
	t.Parallel()
	log := slog.New(slog.DiscardHandler)
	dir := t.TempDir()
	pipe, link, long := filepath.Join(dir, "pipe"), filepath.Join(dir, "link"), filepath.Join(dir, "long")
	if err := errors.Join(unix.Mkfifo(pipe, 0o600), os.Symlink("/dev/zero", link), os.WriteFile(long, make([]byte, 2<<20), 0o600)); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{pipe: "no regular file", link: "no regular file", long: "longer than", dir: "no regular file"} {
		s := newKeySource()
		s.Cache = keys.NewCache(log)
		s.files = []*kmsFile{{path: path}}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		s.reload(ctx, log)
		if w := s.warnings(); len(w) != 1 || !strings.Contains(w[0], want) {
			t.Errorf("%s: warnings %q, want %q", path, w, want)
		}
		s.reloading <- struct{}{} // as in a reading that hangs
		cancel()
		s.reload(ctx, log)
		s.Close()
	}
}
