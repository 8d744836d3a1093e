package kmip_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"vmcryptfs/keys/kmip"
)

const corp = `[provider.corp]
servers = ["kms1.example:5696", "[::1]:5696"]
ca   = "/etc/vmcryptfs/corp-ca.pem"
cert = "/etc/vmcryptfs/host.pem"
key  = "/etc/vmcryptfs/host.key"
`

func load(t *testing.T, text string) ([]kmip.Config, string, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "kms.toml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	configs, err := kmip.LoadConfig(path)
	return configs, path, err
}

func TestLoadConfig(t *testing.T) {
	t.Parallel()
	configs, path, err := load(t, corp+`
[provider."second site"]
servers = ["kms:1"]
ca = "ca.pem"
cert = "sub/host.pem"
key = "/k"
version = "1.2"
username = "host"
password_file = "password"
server_name = "kms.example"
key_password_file = "key.password"
timeout = "3s"
`)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Dir(path)
	want := []kmip.Config{
		{Name: "corp", Servers: []string{"kms1.example:5696", "[::1]:5696"}, CA: "/etc/vmcryptfs/corp-ca.pem",
			Cert: "/etc/vmcryptfs/host.pem", Key: "/etc/vmcryptfs/host.key"},
		{Name: "second site", Servers: []string{"kms:1"}, CA: filepath.Join(dir, "ca.pem"),
			Cert: filepath.Join(dir, "sub/host.pem"), Key: "/k", Version: "1.2", Username: "host",
			PasswordFile: filepath.Join(dir, "password"), ServerNames: []string{"kms.example"},
			KeyPassword: filepath.Join(dir, "key.password"), Timeout: 3 * time.Second},
	}
	if diff := cmp.Diff(want, configs); diff != "" {
		t.Error(diff)
	}
}

// TestBadConfig: errors have line, key, and words about the expected value.
func TestBadConfig(t *testing.T) {
	t.Parallel()
	nine := make([]string, 9)
	for i := range nine {
		nine[i] = fmt.Sprintf("%q", fmt.Sprintf("kms%d:5696", i))
	}
	with := func(key, value string) string {
		var out []string
		for _, line := range strings.Split(corp, "\n") {
			if strings.HasPrefix(line, key+" ") {
				line = key + " = " + value
			}
			out = append(out, line)
		}
		return strings.Join(out, "\n")
	}
	without := func(key string) string {
		var out []string
		for _, line := range strings.Split(corp, "\n") {
			if !strings.HasPrefix(line, key+" ") {
				out = append(out, line)
			}
		}
		return strings.Join(out, "\n")
	}
	for _, c := range []struct {
		name, text string
		line       int
		key        string
		expected   string
	}{
		{"empty", "", 0, "", "expected a table [provider.NAME]"},
		{"no TOML", "x = = 1\n", 1, "", ""},
		{"a top key", "timeout = \"5s\"\n" + corp, 1, "timeout", "expected a table [provider.NAME]"},
		{"a top table", corp + "\n[providers.x]\n", 7, "providers.x", "expected a table [provider.NAME]"},
		{"an unknown key", corp + "sever = \"x\"\n", 6, "provider.corp.sever", "unknown key: expected servers"},
		{"a table within", corp + "[provider.corp.tls]\nx = 1\n", 6, "provider.corp.tls", "unknown key: expected servers"},
		{"provider is no table", "provider = 5\n", 1, "", ""},
		{"the provider is no table", "[provider]\ncorp = 5\n", 2, "", ""},
		{"twice", corp + corp, 6, "", "already"},
		{"servers a string", with("servers", `"kms:1"`), 2, "provider.corp.servers", "expected an array of strings"},
		{"a server a number", with("servers", `["kms:1", 5]`), 2, "provider.corp.servers", "expected a string"},
		{"no server", with("servers", `[]`), 2, "provider.corp.servers", "expected 1 to 8"},
		{"nine servers", with("servers", "["+strings.Join(nine, ",")+"]"), 2, "provider.corp.servers", "expected 1 to 8"},
		{"a server twice", with("servers", `["kms:1", "kms:1"]`), 2, "provider.corp.servers", "twice"},
		{"no port", with("servers", `["kms"]`), 2, "provider.corp.servers", "expected host:port"},
		{"port 0", with("servers", `["kms:0"]`), 2, "provider.corp.servers", "expected host:port"},
		{"port 65536", with("servers", `["kms:65536"]`), 2, "provider.corp.servers", "expected host:port"},
		{"a port of letters", with("servers", `["kms:kmip"]`), 2, "provider.corp.servers", "expected host:port"},
		{"no host", with("servers", `[":5696"]`), 2, "provider.corp.servers", "expected host:port"},
		{"servers missing", without("servers"), 1, "provider.corp.servers", "expected 1 to 8"},
		{"ca missing", without("ca"), 1, "provider.corp.ca", "expected the path of a PEM file"},
		{"cert missing", without("cert"), 1, "provider.corp.cert", "expected the path of a PEM file"},
		{"key missing", without("key"), 1, "provider.corp.key", "expected the path of a PEM file"},
		{"ca a number", with("ca", "7"), 3, "provider.corp.ca", "expected a string"},
		{"ca empty", with("ca", `""`), 3, "provider.corp.ca", "not empty"},
		{"a control character", with("ca", `"a\u0007b"`), 3, "provider.corp.ca", "without control characters"},
		{"a version that is none", corp + "version = \"3.0\"\n", 6, "provider.corp.version", "expected one of [2.0 1.4"},
		{"version a number", corp + "version = 1.2\n", 6, "provider.corp.version", "expected a string"},
		{"two names for three", strings.Replace(corp, "[\"kms1", "[\"x:1\", \"kms1", 1) + "server_name = [\"a\", \"b\"]\n", 6, "provider.corp.server_name", "2 names for 3 servers"},
		{"a name with a port", corp + "server_name = 7\n", 6, "provider.corp.server_name", "expected a host name"},
		{"no password", corp + "username = \"u\"\n", 6, "provider.corp.username", "expected both or none"},
		{"no username", corp + "password_file = \"u\"\n", 1, "provider.corp.username", "expected both or none"},
		{"timeout a number", corp + "timeout = 5\n", 6, "provider.corp.timeout", `expected a duration, as "5s"`},
		{"timeout without unit", corp + "timeout = \"5\"\n", 6, "provider.corp.timeout", `expected a duration, as "5s"`},
		{"timeout negative", corp + "timeout = \"-5s\"\n", 6, "provider.corp.timeout", `expected a duration, as "5s"`},
		{"timeout too short", corp + "timeout = \"1ms\"\n", 6, "provider.corp.timeout", "expected 100ms to 1m"},
		{"timeout too long", corp + "timeout = \"1h\"\n", 6, "provider.corp.timeout", "expected 100ms to 1m"},
		{"a long name", strings.Replace(corp, "corp", strings.Repeat("x", 65), 1), 1, "provider." + strings.Repeat("x", 65), "1 to 64 bytes"},
		{"a name with a control character", strings.Replace(corp, "corp", `"a\nb"`, 1), 1, "", "control characters"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			_, path, err := load(t, c.text)
			wrong, ok := errors.AsType[*kmip.ConfigError](err)
			if !ok {
				t.Fatalf("%v is no ConfigError", err)
			}
			if wrong.File != path || wrong.Line != c.line || c.key != "" && wrong.Key != c.key || !strings.Contains(wrong.Reason, c.expected) {
				t.Errorf("%v\nwant line %d, key %q, %q", err, c.line, c.key, c.expected)
			}
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("more than a line: %q", err)
			}
		})
	}
}

func TestNoConfig(t *testing.T) {
	t.Parallel()
	if _, err := kmip.LoadConfig(filepath.Join(t.TempDir(), "kms.toml")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v, want %v", err, fs.ErrNotExist)
	}
}

// FuzzConfig: any text is a configuration acceptable to Open, or a ConfigError of one line.
func FuzzConfig(f *testing.F) {
	f.Add(corp)
	f.Add("provider.x.servers = []")
	f.Add("[provider.\"\"]\nca=1")
	f.Add("[[provider.x]]\n[[provider.x]]")
	f.Add("[provider]\nx = {servers = [\"a:1\"]}")
	f.Fuzz(func(t *testing.T, text string) {
		configs, _, err := load(t, text)
		if _, ok := errors.AsType[*kmip.ConfigError](err); err != nil && (!ok || strings.Contains(err.Error(), "\n")) {
			t.Errorf("%q", err)
		}
		if err == nil && len(configs) == 0 {
			t.Error("no provider and no error")
		}
	})
}
