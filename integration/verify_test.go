package integration

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/BurntSushi/toml"
	"github.com/ovh/kmip-go/kmipclient"

	"vmcryptfs/integration/mounttest"
)

// kmsClient is a foreign KMIP client, with the certificate made by the server for its users.
func kmsClient(t testing.TB, config string) *kmipclient.Client {
	t.Helper()
	var file struct {
		Provider map[string]struct {
			Servers       []string
			CA, Cert, Key string
		}
	}
	if _, err := toml.DecodeFile(config, &file); err != nil {
		t.Fatal(err)
	}
	at := func(path string) string { // relative paths are relative to the kms.toml
		if filepath.IsAbs(path) {
			return path
		}
		return filepath.Join(filepath.Dir(config), path)
	}
	for _, p := range file.Provider {
		c, err := dialKMS(p.Servers[0], at(p.CA), at(p.Cert), at(p.Key))
		if err != nil {
			t.Fatalf("KMIP to %s of %s: %v", p.Servers[0], config, err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	t.Fatalf("%s names no provider", config)
	return nil
}

func dialKMS(addr, ca, cert, key string) (*kmipclient.Client, error) {
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		return nil, err
	}
	pem, err := os.ReadFile(ca)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s: no certificate", ca)
	}
	ctx, cancel := context.WithTimeout(context.Background(), mounttest.Patience)
	defer cancel()
	return kmipclient.DialContext(ctx, addr, kmipclient.WithTlsConfig(&tls.Config{
		RootCAs: pool, Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12,
	}))
}

// kek gets a key from the key server, once.
func (d *datastore) kek(id string) ([]byte, error) {
	if k := d.keks[id]; k != nil {
		return k, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), mounttest.Patience)
	defer cancel()
	got, err := kmsClient(d.T, d.KMS.Config()).Get(id).ExecContext(ctx)
	if err != nil {
		return nil, fmt.Errorf("get %s over KMIP: %w", id, err)
	}
	k, err := got.SymmetricKey()
	if err != nil {
		return nil, fmt.Errorf("key %s: %w", id, err)
	}
	d.keks[id] = k
	return k, nil
}

// openBacking opens the backing file of name with the independent decryptor.
func (d *datastore) openBacking(name string) (*plainFile, func(), error) {
	f, err := os.Open(d.Below(name))
	if err != nil {
		return nil, nil, err
	}
	done := func() { _ = f.Close() }
	st, err := f.Stat()
	if err != nil {
		done()
		return nil, nil, err
	}
	slot, err := countingSlot(f)
	if err != nil {
		done()
		return nil, nil, err
	}
	for _, id := range keyIDs(slot) {
		if _, err := d.kek(id); err != nil {
			done()
			return nil, nil, err
		}
	}
	p, err := openPlain(f, st.Size(), d.keks)
	if err != nil {
		done()
		return nil, nil, err
	}
	return p, done, nil
}

// census is verify's findings in BACKING.
type census struct {
	encrypted, clear, empty int
	bytes                   int64 // compared
}

// verify decrypts every file of BACKING and compares the file, byte and size, with the mount's
// view. No two files (hard links apart) share an id, a DEK or a wrap nonce.
func (d *datastore) verify() census {
	d.T.Helper()
	var c census
	seen := map[string]os.FileInfo{} // by id, DEK and nonce
	err := filepath.WalkDir(d.Backing, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(d.Backing, path)
		switch {
		case e.Name() == ".vmcryptfs":
			return filepath.SkipDir
		case strings.HasPrefix(e.Name(), ".vmcryptfs"):
			return fmt.Errorf("%s is left over in BACKING", name)
		case !e.Type().IsRegular():
			return nil
		}
		if err := d.verifyFile(name, &c, seen); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		return nil
	})
	if err != nil {
		d.T.Fatalf("verify BACKING: %v", err)
	}
	d.T.Logf("BACKING: %d encrypted, %d clear, %d empty files, %d bytes compared", c.encrypted, c.clear, c.empty, c.bytes)
	return c
}

func (d *datastore) verifyFile(name string, c *census, seen map[string]os.FileInfo) error {
	form, err := mounttest.FormOf(d.Below(name))
	if err != nil {
		return err
	}
	mounted, err := os.Open(d.Path(name))
	if err != nil {
		return err
	}
	defer func() { _ = mounted.Close() }()
	st, err := mounted.Stat()
	if err != nil {
		return err
	}
	switch form {
	case "empty":
		c.empty++
		return sameSize(st.Size(), 0)
	case "clear":
		c.clear++
		raw, err := os.Open(d.Below(name))
		if err != nil {
			return err
		}
		defer func() { _ = raw.Close() }()
		rawStat, err := raw.Stat()
		if err != nil {
			return err
		}
		return compareFiles(mounted, st.Size(), raw, rawStat.Size(), c)
	}
	c.encrypted++
	p, done, err := d.openBacking(name)
	if err != nil {
		return err
	}
	defer done()
	raw, err := os.Stat(d.Below(name))
	if err != nil {
		return err
	}
	for what, value := range map[string]string{"id": p.id, "wrap nonce": p.nonce, "DEK": p.dek} {
		other, twice := seen[what+value]
		if twice && !os.SameFile(raw, other) {
			return fmt.Errorf("same %s as %s", what, other.Name())
		}
		seen[what+value] = raw
	}
	return compareFiles(mounted, st.Size(), p, p.size, c)
}

func sameSize(got, want int64) error {
	if got != want {
		return fmt.Errorf("size %d through the mount, %d in BACKING", got, want)
	}
	return nil
}

// compareFiles reads both to the end, in pieces of 1 MiB.
func compareFiles(got io.ReaderAt, gotSize int64, want io.ReaderAt, wantSize int64, c *census) error {
	if err := sameSize(gotSize, wantSize); err != nil {
		return err
	}
	a, b := make([]byte, 1<<20), make([]byte, 1<<20)
	for off := int64(0); off < wantSize; off += int64(len(a)) {
		n := int(min(int64(len(a)), wantSize-off))
		if m, err := got.ReadAt(a[:n], off); m < n {
			return fmt.Errorf("read %d at %d through the mount: %d, %w", n, off, m, err)
		}
		if m, err := want.ReadAt(b[:n], off); m < n && !errors.Is(err, io.EOF) || m < n {
			return fmt.Errorf("read %d at %d from BACKING: %d, %w", n, off, m, err)
		}
		if i := firstDifference(a[:n], b[:n]); i >= 0 {
			return fmt.Errorf("mount and BACKING differ at %d", off+int64(i))
		}
		c.bytes += int64(n)
	}
	return nil
}

// firstDifference is -1 when a and b, of one length, are equal.
func firstDifference(a, b []byte) int {
	for i := range a {
		if a[i] != b[i] {
			return i
		}
	}
	return -1
}
