package devkms_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"vmcryptfs/integration/mounttest"
	"vmcryptfs/keys"
	"vmcryptfs/keys/devkms"
	"vmcryptfs/keys/kmip"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func start(t *testing.T, dir, listen string) *devkms.Server {
	t.Helper()
	s, err := devkms.Start(t.Context(), dir, listen, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error("close:", err)
		}
	})
	return s
}

// provider is our client by the server's own kms.toml.
func provider(t *testing.T, s *devkms.Server) *kmip.Provider {
	t.Helper()
	configs, err := kmip.LoadConfig(s.ConfigPath())
	if err != nil {
		t.Fatal(err)
	}
	if len(configs) != 1 || configs[0].Name != devkms.ProviderName || configs[0].Servers[0] != s.Addr() {
		t.Fatalf("%+v", configs)
	}
	configs[0].Timeout = time.Minute // the tests run beside others
	p, err := kmip.Open(configs[0], slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

// TestRestart: keys, states, certificates and the port are there again.
func TestRestart(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "a", "kms")
	first := start(t, dir, mounttest.FreeAddress(t)) // nobody else gets it meanwhile
	p := provider(t, first)
	kek, err := p.Create(t.Context(), "a key")
	if err != nil {
		t.Fatal(err)
	}
	defer kek.Wipe()
	ended, err := p.Create(t.Context(), "another key")
	if err != nil {
		t.Fatal(err)
	}
	defer ended.Wipe()
	if err := errors.Join(p.Revoke(t.Context(), ended.ID, kmip.Superseded), p.Destroy(t.Context(), ended.ID)); err != nil {
		t.Fatal(err)
	}
	before := contents(t, dir)
	if err := errors.Join(first.Close(), first.Close()); err != nil {
		t.Fatal("closed twice:", err)
	}

	second := start(t, dir, "")
	if second.Addr() != first.Addr() {
		t.Errorf("at %s after %s", second.Addr(), first.Addr())
	}
	for name, content := range contents(t, dir) {
		if content != before[name] {
			t.Errorf("%s changed", name)
		}
	}
	// The client of before needs no new kms.toml.
	again, _, err := p.Get(t.Context(), kek.ID, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Wipe()
	if again.CheckValue() != kek.CheckValue() {
		t.Error("another key")
	}
	if state, err := p.State(t.Context(), ended.ID); err != nil || state != keys.Destroyed {
		t.Errorf("the destroyed key is %v, %v", state, err)
	}
}

func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		all[path] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// TestFiles: other users can read no secret, and the bytes of a destroyed key are gone.
func TestFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	p := provider(t, start(t, dir, ""))
	material := []byte("an AES-256 key that is searched!")
	kek, err := p.Import(t.Context(), "a key", material)
	if err != nil {
		t.Fatal(err)
	}
	defer kek.Wipe()
	holds := func() (n int) {
		for path, content := range contents(t, dir) {
			if strings.Contains(content, string(material)) {
				n++
			}
			info, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			public := filepath.Ext(path) == ".pem"
			if mode := info.Mode().Perm(); !public && mode != 0o600 {
				t.Errorf("%s has mode %04o", path, mode)
			}
		}
		return n
	}
	if n := holds(); n != 1 {
		t.Errorf("the key lies in %d files, want 1", n)
	}
	if err := errors.Join(p.Revoke(t.Context(), kek.ID, kmip.KeyCompromise), p.Destroy(t.Context(), kek.ID)); err != nil {
		t.Fatal(err)
	}
	if n := holds(); n != 0 {
		t.Errorf("the destroyed key lies in %d files", n)
	}
	if state, err := p.State(t.Context(), kek.ID); err != nil || state != keys.DestroyedCompromised {
		t.Errorf("state %v, %v", state, err)
	}
}

func TestListen(t *testing.T) {
	t.Parallel()
	for _, address := range []string{"0.0.0.0:0", ":0", "[::]:0", "192.0.2.1:5696", "kms.example:5696", "127.0.0.1", "localhost.evil:1"} {
		s, err := devkms.Start(t.Context(), t.TempDir(), address, slog.New(slog.DiscardHandler))
		if err == nil {
			s.Close()
			t.Errorf("it listens on %s", address)
		} else if !errors.Is(err, devkms.ErrAddress) || !strings.Contains(err.Error(), address) {
			t.Errorf("%v, want %v that names %s", err, devkms.ErrAddress, address)
		}
	}
	for _, address := range []string{"127.0.0.1:0", "127.9.8.7:0", "localhost:0"} {
		start(t, t.TempDir(), address)
	}
}

// TestPortTaken: the port of the last time belongs to somebody else now.
func TestPortTaken(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first := start(t, dir, mounttest.FreeAddress(t)) // for other, and for nobody else
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	other, err := net.Listen("tcp", first.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	second := start(t, dir, "")
	if second.Addr() == first.Addr() {
		t.Fatal("the same address")
	}
	if _, err := provider(t, second).State(t.Context(), "none"); !errors.Is(err, keys.ErrNotFound) {
		t.Errorf("by the new kms.toml: %v", err)
	}
}

func TestOneAtATime(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	start(t, dir, "")
	if s, err := devkms.Start(t.Context(), dir, "", slog.New(slog.DiscardHandler)); !errors.Is(err, devkms.ErrRunning) {
		if err == nil {
			s.Close()
		}
		t.Errorf("%v, want %v", err, devkms.ErrRunning)
	}
}

// TestDamage: an error names a file that is no key, or half a key.
func TestDamage(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func([]byte) []byte{
		"cut":        func(b []byte) []byte { return b[:len(b)-1] },
		"longer":     func(b []byte) []byte { return append(b, 0) },
		"empty":      func([]byte) []byte { return nil },
		"no JSON":    func(b []byte) []byte { b[0] = '['; return b },
		"another id": func(b []byte) []byte { return []byte(strings.Replace(string(b), `"id":"`, `"id":"x`, 1)) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			s := start(t, dir, "")
			kek, err := provider(t, s).Create(t.Context(), "a key")
			if err != nil {
				t.Fatal(err)
			}
			kek.Wipe()
			s.Close()
			path := filepath.Join(dir, "keys", kek.ID+".key")
			content, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, spoil(content), 0o600); err != nil {
				t.Fatal(err)
			}
			if s, err := devkms.Start(t.Context(), dir, "", slog.New(slog.DiscardHandler)); err == nil {
				s.Close()
				t.Error("it started")
			} else if !strings.Contains(err.Error(), path) {
				t.Errorf("%v does not name %s", err, path)
			}
		})
	}
}

// clientTLS is a client's TLS configuration, made by hand.
func clientTLS(t *testing.T, dir string) *tls.Config {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, "client.pem"), filepath.Join(dir, "client.key"))
	if err != nil {
		t.Fatal(err)
	}
	ca, err := os.ReadFile(filepath.Join(dir, "ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	return &tls.Config{Certificates: []tls.Certificate{pair}, RootCAs: pool}
}

// TestStrangers: no session without a certificate of the server's own CA, or with an old TLS.
func TestStrangers(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := start(t, dir, "")
	otherDir := t.TempDir()
	start(t, otherDir, "")
	for name, edit := range map[string]func(*tls.Config){
		"no certificate":           func(c *tls.Config) { c.Certificates = nil },
		"a certificate of another": func(c *tls.Config) { c.Certificates = clientTLS(t, otherDir).Certificates },
		"TLS 1.1":                  func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS11, tls.VersionTLS11 },
		"the server's as a client's": func(c *tls.Config) {
			pair, err := tls.LoadX509KeyPair(filepath.Join(dir, "server.pem"), filepath.Join(dir, "server.key"))
			if err != nil {
				t.Fatal(err)
			}
			c.Certificates = []tls.Certificate{pair}
		},
	} {
		t.Run(name, func(t *testing.T) {
			config := clientTLS(t, dir)
			edit(config)
			conn, err := tls.Dial("tcp", s.Addr(), config)
			if err == nil {
				// With TLS 1.3 the server's refusal comes after the client's last step.
				_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
				_, err = conn.Read(make([]byte, 1))
				conn.Close()
			}
			if err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("let in: %v", err)
			}
		})
	}
}

// TestHostileClients: a client that sends nonsense loses its session or gets an error as answer,
// and other clients notice nothing.
func TestHostileClients(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := start(t, dir, "")
	p := provider(t, s)
	deep := make([]byte, 0, 80000)
	for i := range 10000 {
		n := 8 * (9999 - i)
		deep = append(deep, 0x42, 0x00, 0x78, 0x01, byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
	}
	for name, sent := range map[string][]byte{
		"nothing":        nil,
		"half a header":  {0x42, 0x00, 0x78},
		"garbage":        []byte("GET / HTTP/1.1\r\n\r\n"),
		"4 GiB":          {0x42, 0x00, 0x78, 0x01, 0xff, 0xff, 0xff, 0xff},
		"an empty one":   {0x42, 0x00, 0x78, 0x01, 0, 0, 0, 0},
		"deep":           deep,
		"another's tag":  {0x42, 0x00, 0x7b, 0x01, 0, 0, 0, 0},
		"type 0 within":  {0x42, 0x00, 0x78, 0x01, 0, 0, 0, 8, 0x42, 0x00, 0x77, 0, 0, 0, 0, 0},
		"half a message": {0x42, 0x00, 0x78, 0x01, 0, 0, 0, 16, 0x42, 0x00, 0x77, 1, 0, 0, 0, 8},
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := tls.Dial("tcp", s.Addr(), clientTLS(t, dir))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
			if _, err := conn.Write(sent); err != nil {
				t.Fatal(err)
			}
			_ = conn.CloseWrite()
			if _, err := io.Copy(io.Discard, conn); errors.Is(err, os.ErrDeadlineExceeded) {
				t.Error("the session hangs")
			}
			if _, err := p.State(t.Context(), "none"); !errors.Is(err, keys.ErrNotFound) {
				t.Errorf("another client: %v", err)
			}
		})
	}
}

// TestCloseWaits: Close ends idle and half-open sessions.
func TestCloseWaits(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := start(t, dir, "")
	idle, err := tls.Dial("tcp", s.Addr(), clientTLS(t, dir))
	if err != nil {
		t.Fatal(err)
	}
	defer idle.Close()
	silent, err := net.Dial("tcp", s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	begin := time.Now()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(begin); took > 8*time.Second { // by itself the silent one ends after 10 s
		t.Errorf("it took %v", took)
	}
	_ = idle.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := idle.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the session goes on: %v", err)
	}
}
