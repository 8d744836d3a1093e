package integration

import (
	"bytes"
	"context"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/ovh/kmip-go"
	"golang.org/x/sys/unix"

	"vmcryptfs/integration/mounttest"
)

const settingsFile = ".vmcryptfs/datastore.toml"

// reseal returns body with a seal under kek, made by hand.
func reseal(t *testing.T, body, kek []byte) []byte {
	t.Helper()
	m := regexp.MustCompile(`(?m)^id = "([0-9a-f-]{36})"$`).FindSubmatch(body)
	if m == nil {
		t.Fatalf("no id in:\n%s", body)
	}
	salt, err := hex.DecodeString(strings.ReplaceAll(string(m[1]), "-", ""))
	if err != nil {
		t.Fatal(err)
	}
	key, err := hkdf.Key(sha256.New, kek, salt, "vmcryptfs settings v1", 32)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Appendf(bytes.Clone(body), "[seal]\nmac = \"%x\"\n", hmacSHA256(key, body))
}

// createKey makes a key of bits at the key server with a foreign client.
func createKey(t *testing.T, s *mounttest.Server, bits int) (id string, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), mounttest.Patience)
	defer cancel()
	c := kmsClient(t, s.Config())
	made, err := c.Create().AES(bits, kmip.CryptographicUsageEncrypt|kmip.CryptographicUsageDecrypt).ExecContext(ctx)
	if err != nil {
		return "", fmt.Errorf("create: %w", err)
	}
	if _, err := c.Activate(made.UniqueIdentifier).ExecContext(ctx); err != nil {
		return "", fmt.Errorf("activate: %w", err)
	}
	return made.UniqueIdentifier, nil
}

// TestBadSettings tries every way of changing the settings with access to BACKING: the mount is
// refused with exit 4, the error names the file, and nothing is rewritten.
func TestBadSettings(t *testing.T) {
	t.Parallel()
	s := mounttest.StartKMS(t)
	d := newServed(t, s)
	d.Write("reference.img", plainText)
	_, kek := d.currentKey("reference.img")
	d.Unmount()
	path := d.Below(settingsFile)
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	body := good[:bytes.Index(good, []byte("[seal]"))]
	if again := reseal(t, body, kek); !bytes.Equal(again, good) {
		t.Fatalf("a seal made by hand differs:\n%s\n%s", again, good)
	}
	otherID, err := createKey(t, s, 256)
	if err != nil {
		t.Fatal(err)
	}
	otherKEK, err := d.kek(otherID)
	if err != nil {
		t.Fatal(err)
	}
	replace := func(old, new string) []byte { return regexp.MustCompile(old).ReplaceAll(body, []byte(new)) }
	cases := map[string][]byte{
		"rule added":               slabs(body[:len(body)-1], []byte("clear = [\"*.img\"]\n\n"), good[len(body):]),
		"mac changed":              bytes.Replace(good, []byte(`mac = "`), []byte(`mac = "00`), 1),
		"mac of zeros":             regexp.MustCompile(`mac = "[0-9a-f]{64}"`).ReplaceAll(good, []byte(`mac = "`+strings.Repeat("0", 64)+`"`)),
		"no seal":                  body,
		"something after the seal": append(bytes.Clone(good), "clear = [\"*\"]\n"...),
		"two seals":                append(bytes.Clone(good), good[len(body):]...),
		"sealed by a random key":   reseal(t, body, random(32)),
		"another key, its seal":    reseal(t, replace(`kek = ".*"`, `kek = "`+otherID+`"`), otherKEK),
		"another id, right key":    reseal(t, replace(`id = "........`, `id = "01234567`), kek),
		"another id, another key":  reseal(t, replace(`(?s)id = "........(.*)kek = "[^"]*"`, `id = "01234567${1}kek = "`+otherID+`"`), otherKEK),
		"unknown key":              slabs(body[:len(body)-1], []byte("encryption = false\n\n"), good[len(body):]),
		"newer format":             reseal(t, replace(`format = 1`, `format = 2`), kek),
		"not TOML":                 []byte("\x00\x01\x02 = = ["),
		"empty":                    {},
		"cut":                      good[:len(good)/2],
		"10 MiB":                   slabs(body, bytes.Repeat([]byte("# more\n"), 10<<20/7), good[len(body):]),
	}
	for name, content := range cases {
		t.Run(name, func(t *testing.T) {
			if err := os.WriteFile(path, content, 0o600); err != nil {
				t.Fatal(err)
			}
			code := 4
			if name == "newer format" {
				code = 1
			}
			d.wantRefused(t, code, d.Backing)
			if after, err := os.ReadFile(path); err != nil || !bytes.Equal(after, content) {
				t.Errorf("settings were rewritten (%v)", err)
			}
		})
	}
	if err := os.WriteFile(path, good, 0o600); err != nil {
		t.Fatal(err)
	}
	d.Mount()
	wantSame(t, "reference.img", d.Read("reference.img"), plainText)
	t.Logf("%d wrong settings files", len(cases))
}

// wantRefused mounts; the mount must fail with the exit code and one line containing what.
func (d *datastore) wantRefused(t *testing.T, code int, what string) {
	t.Helper()
	r := d.TryMount()
	if r.Code == 0 {
		d.Unmount()
	}
	if r.Code != code || strings.Count(r.Stderr, "\n") != 1 || !strings.Contains(r.Stderr, what) {
		t.Errorf("want exit %d and one line that names %s: %v", code, what, r)
	}
	if line := mountLine(t, d.Mnt); line != "" {
		t.Errorf("mounted all the same: %s", line)
	}
}

// The settings' place is not to be led elsewhere by a symbolic link.
func TestSymlinkedSettings(t *testing.T) {
	t.Parallel()
	s := mounttest.StartKMS(t)
	d := newServed(t, s)
	d.Unmount()
	elsewhere := filepath.Join(t.TempDir(), "elsewhere")
	dir := d.Below(".vmcryptfs")
	for _, err := range []error{os.Rename(dir, elsewhere), os.Symlink(elsewhere, dir)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	d.wantRefused(t, 4, ".vmcryptfs")
	for _, err := range []error{
		os.Remove(dir), os.Mkdir(dir, 0o700),
		os.Symlink(filepath.Join(elsewhere, "datastore.toml"), d.Below(settingsFile)),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	d.wantRefused(t, 4, ".vmcryptfs")
}

// While the seal cannot be checked, rules in the settings do not count and no file is made; after
// the seal proves wrong, still none.
func TestSettingsChangedInAnOutage(t *testing.T) {
	t.Parallel()
	s := mounttest.StartKMS(t)
	d := newServed(t, s)
	beforeTheOutage(d)
	d.Unmount()
	s.Stop()
	path := d.Below(settingsFile)
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	evil := bytes.Replace(good, []byte("[seal]"), []byte("clear = [\"*.img\"]\n\n[seal]"), 1)
	if err := os.WriteFile(path, evil, 0o600); err != nil {
		t.Fatal(err)
	}
	d.Mount()
	wantNoKey(t, d, false)
	s.Start()
	mounttest.Eventually(t, "status tells of the wrong seal", mounttest.Patience, func() error {
		if text := d.Must("status", d.Mnt).Stdout; !strings.Contains(text, "seal") && !strings.Contains(text, "settings") {
			return errors.New(text)
		}
		return nil
	})
	if err := mounttest.OpenErr(d.Path("new.img"), unix.O_CREAT|unix.O_RDWR); !errors.Is(err, unix.ENOKEY) {
		t.Errorf("create new.img: %v, want ENOKEY", err)
	}
	d.Absent("new.img")
}

// A KEK that is too short wraps nothing: neither for a new datastore nor in a file.
func TestShortKEK(t *testing.T) {
	t.Parallel()
	s := mounttest.StartKMS(t)
	id, err := createKey(t, s, 128)
	if err != nil {
		t.Fatalf("the key server makes no 128-bit key: %v", err)
	}
	d := newUnmounted(t, s)
	if r := d.Command("init", "--provider", "dev", "--kek", id, d.Backing); r.Code != 3 || !strings.Contains(r.Stderr, id) {
		t.Errorf("init under a 128-bit key: want exit 3 and the key named, %v", r)
	}
	d.Absent(settingsFile)
	d.Must("init", "--provider", "dev", d.Backing)
	d.Mount()
	kek, err := d.kek(id)
	if err != nil {
		t.Fatal(err)
	}
	b := badFile{name: "128-bit key", file: newForgery("dev", id, kek).file(plainText), errno: unix.ENOKEY, code: 3}
	b.check(t, d)
}

// An older state of the settings is not taken for the current one.
func TestOlderSettings(t *testing.T) {
	t.Parallel()
	s := mounttest.StartKMS(t)
	d := newServed(t, s)
	path := d.Below(settingsFile)
	first, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	d.Unmount()
	d.Must("settings", "set", d.Backing, "clear", "*.iso")
	second, err := os.ReadFile(path)
	if err != nil || bytes.Equal(first, second) || !bytes.Contains(second, []byte("serial = 2")) {
		t.Fatalf("settings set left (%v):\n%s", err, second)
	}
	d.Mount()
	d.Write("media.iso", []byte("public"))
	d.WantForms(map[string]string{"media.iso": "clear"})
	d.Unmount()
	if err := os.WriteFile(path, first, 0o600); err != nil {
		t.Fatal(err)
	}
	d.wantRefused(t, 4, d.Backing)
	d.Options = []string{"--trust"}
	d.Mount()
}
