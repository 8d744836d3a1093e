package kmip_test

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"vmcryptfs/keys"
	"vmcryptfs/keys/kmip"
)

// written is how a date stands in messages.
func written(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 UTC") }

// TestCertificates: each possible fault of a certificate has its own message, with file and date.
func TestCertificates(t *testing.T) {
	t.Parallel()
	past, future := time.Now().Add(-24*time.Hour), time.Now().Add(24*time.Hour)
	good := func(t *testing.T, p *pki) kmip.Config { return p.config(t, newForeign(t, p, newVault()).address) }
	server := func(l leaf) func(t *testing.T, p *pki) kmip.Config {
		return func(t *testing.T, p *pki) kmip.Config {
			f := &foreign{vault: newVault()}
			f.startAs(t, p, "127.0.0.1:0", l)
			return p.config(t, f.address)
		}
	}
	client := func(l leaf) func(t *testing.T, p *pki) kmip.Config {
		return func(t *testing.T, p *pki) kmip.Config {
			c := good(t, p)
			l.client = true
			c.Cert, c.Key = p.issue(t, "other", l)
			return c
		}
	}
	for _, c := range []struct {
		name  string
		start func(t *testing.T, p *pki) kmip.Config
		kind  error
		words func(c kmip.Config) []string
	}{
		{"client expired", client(leaf{from: past.Add(-time.Hour), to: past}), keys.ErrUnreachable,
			func(c kmip.Config) []string {
				return []string{"client certificate " + c.Cert, "expired on " + written(past)}
			}},
		{"client not yet valid", client(leaf{from: future, to: future.Add(time.Hour)}), keys.ErrUnreachable,
			func(c kmip.Config) []string {
				return []string{"client certificate " + c.Cert, "not valid before " + written(future)}
			}},
		{"client of another CA", func(t *testing.T, p *pki) kmip.Config {
			c := good(t, p)
			c.Cert, c.Key = newPKI(t).issue(t, "stranger", leaf{client: true})
			return c
		}, keys.ErrRefused, func(c kmip.Config) []string {
			return []string{"the server refuses client certificate " + c.Cert, "CN=stranger", "valid until 20"}
		}},
		{"server expired", server(leaf{from: past.Add(-time.Hour), to: past}), keys.ErrUnreachable,
			func(c kmip.Config) []string {
				return []string{"the server's certificate", "CA " + c.CA, "expired on " + written(past)}
			}},
		{"server not yet valid", server(leaf{from: future, to: future.Add(time.Hour)}), keys.ErrUnreachable,
			func(c kmip.Config) []string {
				return []string{"the server's certificate", "CA " + c.CA, "not valid before " + written(future)}
			}},
		{"intermediate expired", func(t *testing.T, p *pki) kmip.Config {
			f := &foreign{vault: newVault()}
			f.startAs(t, p.under(t, past.Add(-time.Hour), past), "127.0.0.1:0", leaf{})
			return p.config(t, f.address)
		}, keys.ErrUnreachable, func(c kmip.Config) []string {
			return []string{"the intermediate certificate (CN=intermediate)", "CN=foreign", "CA " + c.CA, "expired on " + written(past)}
		}},
		{"intermediate of a stranger, not yet valid", func(t *testing.T, p *pki) kmip.Config {
			f := &foreign{vault: newVault()}
			f.startAs(t, newPKI(t).under(t, future, future.Add(time.Hour)), "127.0.0.1:0", leaf{})
			return p.config(t, f.address)
		}, keys.ErrUnreachable, func(c kmip.Config) []string {
			return []string{"the intermediate certificate (CN=intermediate)", "CA " + c.CA, "not valid before " + written(future)}
		}},
		{"server of another name", server(leaf{names: []string{"kms9.example"}}), keys.ErrUnreachable,
			func(c kmip.Config) []string {
				return []string{"for kms9.example, not for 127.0.0.1", "CA " + c.CA, "valid until 20"}
			}},
		{"server of another CA", func(t *testing.T, p *pki) kmip.Config {
			c := good(t, newPKI(t))
			c.CA = p.ca
			return c
		}, keys.ErrUnreachable, func(c kmip.Config) []string {
			return []string{"not signed by the CA in " + c.CA, "issued by CN=test CA", "valid until 20"}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			config := c.start(t, newPKI(t))
			p := open(t, config)
			_, _, err := p.Get(t.Context(), "1", nil)
			if !errors.Is(err, c.kind) {
				t.Errorf("%v, want %v", err, c.kind)
			}
			for _, words := range append(c.words(config), config.Servers[0]) {
				if !strings.Contains(err.Error(), words) {
					t.Errorf("%v\nhas no %q", err, words)
				}
			}
			if h := p.Health()[0]; h.OK || h.LastError == "" {
				t.Errorf("health %+v", h)
			}
		})
	}
}

// TestBadFiles: files refused by Open.
func TestBadFiles(t *testing.T) {
	t.Parallel()
	p := newPKI(t)
	good := p.config(t, "127.0.0.1:1")
	dir := t.TempDir()
	file := func(name, content string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	key, err := os.ReadFile(good.Key)
	if err != nil {
		t.Fatal(err)
	}
	groupKey, worldKey := file("group.key", string(key), 0o640), file("world.key", string(key), 0o604)
	password := file("password", "secret\n", 0o644)
	empty := file("empty", "", 0o600)
	_, otherKey := p.issue(t, "another", leaf{client: true})
	missing := filepath.Join(dir, "missing")
	for _, c := range []struct {
		name  string
		edit  func(c *kmip.Config)
		words []string
	}{
		{"group can read the key", func(c *kmip.Config) { c.Key = groupKey }, []string{"client key", "0640", "run chmod 600 " + groupKey}},
		{"world can read the key", func(c *kmip.Config) { c.Key = worldKey }, []string{"client key", "0604", "run chmod 600 " + worldKey}},
		{"world can read the password", func(c *kmip.Config) { c.Username, c.PasswordFile = "u", password },
			[]string{"password file", "run chmod 600 " + password}},
		{"no CA", func(c *kmip.Config) { c.CA = missing }, []string{"CA certificate", missing, "no such file"}},
		{"no certificate", func(c *kmip.Config) { c.Cert = missing }, []string{"client certificate", missing, "no such file"}},
		{"no key", func(c *kmip.Config) { c.Key = missing }, []string{"client key", missing, "no such file"}},
		{"no password", func(c *kmip.Config) { c.Username, c.PasswordFile = "u", missing }, []string{"password file", missing}},
		{"an empty CA", func(c *kmip.Config) { c.CA = empty }, []string{"CA certificate " + empty, "no certificate in it"}},
		{"an empty certificate", func(c *kmip.Config) { c.Cert = empty }, []string{"client certificate " + empty, "no certificate in it"}},
		{"an empty key", func(c *kmip.Config) { c.Key = empty }, []string{"client key " + empty}},
		{"another certificate's key", func(c *kmip.Config) { c.Key = otherKey }, []string{"client key " + otherKey, good.Cert, "does not match"}},
		{"no server", func(c *kmip.Config) { c.Servers = nil }, []string{"servers", "expected 1 to 8"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			config := good
			c.edit(&config)
			provider, err := kmip.Open(config, slog.New(slog.DiscardHandler))
			if err == nil {
				provider.Close()
				t.Fatal("opened")
			}
			if provider != nil {
				t.Error("a provider came with the error")
			}
			for _, words := range c.words {
				if !strings.Contains(err.Error(), words) {
					t.Errorf("%v\nhas no %q", err, words)
				}
			}
			if strings.Contains(err.Error(), missing) != errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%v: cause lost", err)
			}
		})
	}
}

// TestReload: new sessions use the certificates as the files are now; an unusable replacement
// leaves the old certificates in use.
func TestReload(t *testing.T) {
	t.Parallel()
	p := newPKI(t)
	f := newForeign(t, p, newVault())
	config := p.config(t, f.address)
	provider := open(t, config)
	kek := create(t, provider)

	replace := func(path string, content []byte) {
		t.Helper()
		if err := os.WriteFile(path+".new", content, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
	}
	replace(config.Key, []byte("half of it"))
	awaitKey(t, provider, kek)
	if n := f.accepted.Load(); n != 1 {
		t.Errorf("%d sessions while the new key cannot be used, want 1", n)
	}

	cert, key := p.issue(t, "renewed", leaf{client: true})
	for from, to := range map[string]string{cert: config.Cert, key: config.Key} {
		content, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		replace(to, content)
	}
	awaitKey(t, provider, kek)
	if n := f.accepted.Load(); n != 2 {
		t.Errorf("%d sessions, want a second one with the new certificate", n)
	}
	if name := f.client.Load(); name == nil || *name != "renewed" {
		t.Errorf("the client's certificate is of %v, want renewed", name)
	}
}
