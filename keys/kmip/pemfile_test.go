package kmip_test

import (
	"bytes"
	"encoding/binary"
	"encoding/pem"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf16"

	"vmcryptfs/keys/kmip"
)

// serverOfName is a server whose certificate has another name than the server's host.
func serverOfName(t *testing.T, p *pki, name string) *foreign {
	t.Helper()
	f := &foreign{vault: newVault()}
	f.startAs(t, p, "127.0.0.1:0", leaf{names: []string{name}})
	return f
}

// TestServerName: the name in a server's certificate may differ from the dialled host.
func TestServerName(t *testing.T) {
	t.Parallel()
	p := newPKI(t)
	one, two := serverOfName(t, p, "kms1.example"), serverOfName(t, p, "kms2.example")
	for _, c := range []struct {
		name  string
		names []string
		fails int // servers
	}{
		{"none", nil, 2},
		{"one for all", []string{"kms1.example"}, 1},
		{"one for each", []string{"kms1.example", "kms2.example"}, 0},
		{"the wrong way", []string{"kms2.example", "kms1.example"}, 2},
	} {
		config := p.config(t, one.address, two.address)
		config.ServerNames = c.names
		failed := 0
		for _, r := range open(t, config).Check(t.Context(), nil) {
			if r.Err != nil {
				failed++
				if !strings.Contains(r.Err.Error(), "server_name") {
					t.Errorf("%s: %v says nothing of server_name", c.name, r.Err)
				}
			}
		}
		if failed != c.fails {
			t.Errorf("%s: %d servers are refused, want %d", c.name, failed, c.fails)
		}
	}
}

// openssl runs the command in a directory.
func openssl(t *testing.T, dir string, args ...string) {
	t.Helper()
	cmd := exec.Command("openssl", args...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("openssl %v: %v\n%s", args, err, out)
	}
}

// TestKeyPassword: an encrypted private key, made by openssl, opens with its password.
func TestKeyPassword(t *testing.T) {
	t.Parallel()
	p := newPKI(t)
	f := newForeign(t, p, newVault())
	plain := p.config(t, f.address)
	dir := t.TempDir()
	overwrite(t, dir+"/password", "\xef\xbb\xbfs3cret word\r\nmore\n")
	overwrite(t, dir+"/wrong", "another\n")
	make := func(args ...string) func() {
		return func() {
			openssl(t, dir, append([]string{"pkcs8", "-topk8", "-in", plain.Key, "-out", "key", "-passout", "pass:s3cret word"}, args...)...)
		}
	}
	for _, c := range []struct {
		name, password string
		make           func()
		words          string // of the error; empty: the key opens
	}{
		{"as openssl makes it", "password", make(), ""},
		{"AES-128, SHA-512", "password", make("-v2", "aes-128-cbc", "-v2prf", "hmacWithSHA512"), ""},
		{"AES-192, SHA-1", "password", make("-v2", "aes-192-cbc", "-v2prf", "hmacWithSHA1"), ""},
		{"wrong password", "wrong", make(), "its password is wrong"},
		{"no password", "", make(), "name the file of its password as key_password_file in kms.toml"},
		{"scrypt", "password", make("-scrypt"), "in a way that is not read (expected PBES2 with PBKDF2 and AES-CBC): convert it with openssl pkcs8 -topk8"},
		{"the old way", "password", func() {
			openssl(t, dir, "ec", "-in", plain.Key, "-aes256", "-passout", "pass:s3cret word", "-out", "key")
		}, "in the old way of PEM"},
		{"damaged", "password", func() {
			make()()
			text, _ := os.ReadFile(dir + "/key")
			block, _ := pem.Decode(text)
			block.Bytes[len(block.Bytes)/2] ^= 1
			block.Bytes = block.Bytes[:len(block.Bytes)-3]
			overwrite(t, dir+"/key", string(pem.EncodeToMemory(block)))
		}, "in a way that is not read"},
	} {
		os.Remove(dir + "/key")
		c.make()
		if err := os.Chmod(dir+"/key", 0o600); err != nil {
			t.Fatal(err)
		}
		config := plain
		config.Key = dir + "/key"
		if c.password != "" {
			config.KeyPassword = filepath.Join(dir, c.password)
		}
		provider, err := kmip.Open(config, slog.New(slog.DiscardHandler))
		switch {
		case c.words == "" && err != nil:
			t.Errorf("%s: %v", c.name, err)
		case c.words != "" && (err == nil || !strings.Contains(err.Error(), c.words) || !strings.Contains(err.Error(), config.Key)):
			t.Errorf("%s: %v\nhas no %q", c.name, err, c.words)
		}
		if err == nil {
			create(t, provider)
			provider.Close()
		}
	}
	if err := os.Chmod(dir+"/password", 0o644); err != nil {
		t.Fatal(err)
	}
	plain.KeyPassword = dir + "/password"
	if _, err := kmip.Open(plain, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "run chmod 600 "+dir+"/password") {
		t.Errorf("of a password that others can read: %v", err)
	}
}

// TestEditedFiles: files as changed by editors and tools are read, or give an error; of two CAs
// none is skipped.
func TestEditedFiles(t *testing.T) {
	t.Parallel()
	p := newPKI(t)
	f := newForeign(t, p, newVault())
	good := p.config(t, f.address)
	ca, err := os.ReadFile(p.ca)
	if err != nil {
		t.Fatal(err)
	}
	other, err := os.ReadFile(newPKI(t).ca)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(ca)
	wide := []byte{0xff, 0xfe}
	for _, unit := range utf16.Encode([]rune(string(ca))) {
		wide = binary.LittleEndian.AppendUint16(wide, unit)
	}
	// The server's CA comes first, where skipping is most likely.
	both := bytes.Join([][]byte{ca, other}, nil)
	for _, c := range []struct {
		name  string
		ca    []byte
		words string // of the error; empty: the server is trusted
	}{
		{"byte order mark", append([]byte("\xef\xbb\xbf"), both...), ""},
		{"CR LF", bytes.ReplaceAll(both, []byte("\n"), []byte("\r\n")), ""},
		{"text before", append([]byte("subject=CN = test CA\nissuer=CN = test CA\n"), both...), ""},
		{"byte order mark and CR LF", append([]byte("\xef\xbb\xbf"), bytes.ReplaceAll(both, []byte("\n"), []byte("\r\n"))...), ""},
		{"text on the line", append([]byte("CA: "), both...), "2 blocks begin in it and 1 can be read"},
		{"cut off", both[:len(both)-60], "2 blocks begin in it and 1 can be read"},
		{"UTF-16", wide, "it is UTF-16"},
		{"UTF-16 without mark", wide[2:], "it is UTF-16"},
		{"DER", block.Bytes, "it is DER, and PEM is expected: convert it with openssl x509 -inform DER"},
		{"trusted", bytes.ReplaceAll(both, []byte("CERTIFICATE"), []byte("TRUSTED CERTIFICATE")), "is a TRUSTED CERTIFICATE, which is not read"},
	} {
		config := good
		config.CA = filepath.Join(t.TempDir(), "ca.pem")
		overwrite(t, config.CA, string(c.ca))
		provider, err := kmip.Open(config, slog.New(slog.DiscardHandler))
		if err == nil {
			err = provider.Check(t.Context(), nil)[0].Err
			provider.Close()
		}
		if (err == nil) != (c.words == "") || err != nil && (!strings.Contains(err.Error(), c.words) || c.words == "") {
			t.Errorf("%s: %v, want %q", c.name, err, c.words)
		}
	}
	// The same for this host's own files.
	for _, path := range []string{good.Cert, good.Key} {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		overwrite(t, path, "\xef\xbb\xbf"+strings.ReplaceAll(string(text), "\n", "\r\n"))
	}
	if err := open(t, good).Check(t.Context(), nil)[0].Err; err != nil {
		t.Error(err)
	}
	if _, _, err := load(t, "\xef\xbb\xbf"+strings.ReplaceAll(corp, "\n", "\r\n")); err != nil {
		t.Error(err)
	}
}
