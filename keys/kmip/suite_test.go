package kmip_test

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"slices"
	"testing"
	"time"

	"vmcryptfs/keys"
	"vmcryptfs/keys/kmip"
)

// A backend is a KMS tested by the suite.
type backend struct {
	name     string
	versions []string // to pin, one after the other; "" is negotiated
	start    func(t *testing.T) kmip.Config
}

const datastore = "6a1f2b3c-4d5e-4f60-8a7b-9c0d1e2f3a4b"

// TestProvider runs one suite over every back end in every version of the back end.
func TestProvider(t *testing.T) {
	t.Parallel()
	for _, b := range backends() {
		t.Run(b.name, func(t *testing.T) {
			t.Parallel()
			config := b.start(t)
			for _, version := range b.versions {
				t.Run("KMIP "+version, func(t *testing.T) {
					config := config
					config.Version = version
					for _, c := range suite() {
						t.Run(c.name, func(t *testing.T) { c.run(t, open(t, config)) })
					}
				})
			}
		})
	}
}

func open(t testing.TB, c kmip.Config) *kmip.Provider {
	t.Helper()
	p, err := kmip.Open(c, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error("close:", err)
		}
	})
	return p
}

type suiteCase struct {
	name string
	run  func(t *testing.T, p *kmip.Provider)
}

func suite() []suiteCase {
	return []suiteCase{
		{"create and get", testCreateAndGet},
		{"import", testImport},
		{"not found", testNotFound},
		{"states", testStates},
		{"compromised", testCompromised},
		{"names", testNames},
		{"many at once", testConcurrent},
		{"context", testContext},
	}
}

// label returns a name unused by other tests.
func label() string { return "vmcryptfs-" + datastore + "-" + rand.Text() }

func create(t testing.TB, p *kmip.Provider) *keys.KEK {
	t.Helper()
	kek, err := p.Create(t.Context(), label())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(kek.Wipe)
	return kek
}

func wantState(t *testing.T, p *kmip.Provider, id string, want keys.State) {
	t.Helper()
	if got, err := p.State(t.Context(), id); err != nil || got != want {
		t.Errorf("state of %s: %v, %v; want %v", id, got, err, want)
	}
}

func testCreateAndGet(t *testing.T, p *kmip.Provider) {
	kek := create(t, p)
	if kek.Provider != p.Name() || kek.ID == "" {
		t.Errorf("key %q of provider %q", kek.ID, kek.Provider)
	}
	wantState(t, p, kek.ID, keys.Active)
	again, _, err := p.Get(t.Context(), kek.ID, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Wipe()
	if again.CheckValue() != kek.CheckValue() {
		t.Error("the key that was created and the one that was got differ")
	}
	if other := create(t, p); other.CheckValue() == kek.CheckValue() || other.ID == kek.ID {
		t.Error("two keys are the same")
	}
	for _, h := range p.Health() {
		if !h.OK || h.Version == "" || h.Checked.IsZero() || h.LastError != "" {
			t.Errorf("health %+v", h)
		}
	}
}

func testImport(t *testing.T, p *kmip.Provider) {
	material := make([]byte, 32)
	rand.Read(material)
	want, err := keys.NewKEK("x", "x", slices.Clone(material))
	if err != nil {
		t.Fatal(err)
	}
	defer want.Wipe()
	kek, err := p.Import(t.Context(), label(), material)
	if err != nil {
		t.Fatal(err)
	}
	defer kek.Wipe()
	if kek.CheckValue() != want.CheckValue() {
		t.Error("the key read back is not the one imported")
	}
	wantState(t, p, kek.ID, keys.Active)
	for _, n := range []int{0, 16, 31, 33, 64} {
		if _, err := p.Import(t.Context(), label(), make([]byte, n)); !errors.Is(err, keys.ErrKeyLength) {
			t.Errorf("import of %d bytes: %v, want %v", n, err, keys.ErrKeyLength)
		}
	}
}

func testNotFound(t *testing.T, p *kmip.Provider) {
	const id = "f3a9c1d2-0000-4000-8000-000000000000"
	if _, _, err := p.Get(t.Context(), id, nil); !errors.Is(err, keys.ErrNotFound) || !errors.Is(err, keys.ErrNoKey) {
		t.Errorf("get: %v, want %v", err, keys.ErrNotFound)
	}
	if _, err := p.State(t.Context(), id); !errors.Is(err, keys.ErrNotFound) {
		t.Errorf("state: %v, want %v", err, keys.ErrNotFound)
	}
	for _, h := range p.Health() {
		if !h.OK {
			t.Errorf("a server without the key is suspect: %+v", h)
		}
	}
}

func testStates(t *testing.T, p *kmip.Provider) {
	kek := create(t, p)
	if err := p.Destroy(t.Context(), kek.ID); err == nil {
		t.Error("an active key was destroyed")
	}
	if err := p.Revoke(t.Context(), kek.ID, kmip.Superseded); err != nil {
		t.Fatal(err)
	}
	wantState(t, p, kek.ID, keys.Deactivated)
	got, _, err := p.Get(t.Context(), kek.ID, nil)
	if err != nil {
		t.Fatalf("a deactivated key opens existing files: %v", err)
	}
	got.Wipe()
	if err := p.Destroy(t.Context(), kek.ID); err != nil {
		t.Fatal(err)
	}
	if _, _, err := p.Get(t.Context(), kek.ID, nil); !errors.Is(err, keys.ErrNotFound) && !errors.Is(err, keys.ErrKeyState) {
		t.Errorf("get of a destroyed key: %v, want %v or %v", err, keys.ErrNotFound, keys.ErrKeyState)
	}
}

func testCompromised(t *testing.T, p *kmip.Provider) {
	kek := create(t, p)
	if err := p.Revoke(t.Context(), kek.ID, kmip.KeyCompromise); err != nil {
		t.Fatal(err)
	}
	wantState(t, p, kek.ID, keys.Compromised)
	got, _, err := p.Get(t.Context(), kek.ID, nil)
	if err != nil {
		t.Fatalf("a compromised key opens existing files: %v", err)
	}
	got.Wipe()
}

func testNames(t *testing.T, p *kmip.Provider) {
	name := label()
	kek, err := p.Create(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	defer kek.Wipe()
	if ids, err := p.Find(t.Context(), name); err != nil || len(ids) != 1 || ids[0] != kek.ID {
		t.Errorf("find %q: %q, %v; want %q", name, ids, err, kek.ID)
	}
	if ids, err := p.Find(t.Context(), name+"x"); err != nil || len(ids) > 0 {
		t.Errorf("find of a name that is not there: %q, %v", ids, err)
	}
}

func testConcurrent(t *testing.T, p *kmip.Provider) {
	kek := create(t, p)
	const n = 16
	failures := make(chan error, n)
	for range n {
		go func() {
			got, _, err := p.Get(t.Context(), kek.ID, nil)
			if err == nil {
				if got.CheckValue() != kek.CheckValue() {
					err = errors.New("another key")
				}
				got.Wipe()
			}
			failures <- err
		}()
	}
	for range n {
		if err := <-failures; err != nil {
			t.Error(err)
		}
	}
}

func testContext(t *testing.T, p *kmip.Provider) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	begin := time.Now()
	if _, _, err := p.Get(ctx, "any", nil); !errors.Is(err, context.Canceled) || !errors.Is(err, keys.ErrUnreachable) {
		t.Errorf("get with a cancelled context: %v", err)
	}
	if took := time.Since(begin); took > patience/2 {
		t.Errorf("it took %v", took)
	}
	if _, _, err := p.Get(t.Context(), "any", nil); !errors.Is(err, keys.ErrNotFound) {
		t.Errorf("after a cancelled request: %v, want %v", err, keys.ErrNotFound)
	}
}
