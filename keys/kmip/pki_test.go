package kmip_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// A pki is a CA of the tests with a directory for the CA's files.
type pki struct {
	dir   string
	cert  *x509.Certificate
	key   *ecdsa.PrivateKey
	ca    string // ca.pem
	chain []byte // of an intermediate CA: sent along with the issued certificates, in PEM
}

// A leaf describes a certificate to issue; the zero value is good for loopback for a day.
type leaf struct {
	from, to time.Time
	names    []string // instead of localhost, 127.0.0.1 and ::1
	client   bool
}

func newPKI(t testing.TB) *pki {
	t.Helper()
	p := &pki{dir: t.TempDir(), key: newKey(t)}
	template := caTemplate("test CA", time.Now().Add(-time.Hour), time.Now().Add(24*time.Hour))
	der := p.sign(t, template, template, p.key)
	p.ca = p.write(t, "ca.pem", "CERTIFICATE", der)
	return p
}

// under makes an intermediate CA, good between from and to. The new CA's files lie beside p's.
func (p *pki) under(t testing.TB, from, to time.Time) *pki {
	t.Helper()
	i := &pki{dir: p.dir, key: newKey(t), ca: p.ca}
	der := i.sign(t, caTemplate("intermediate", from, to), p.cert, p.key)
	i.chain = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return i
}

func caTemplate(name string, from, to time.Time) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: from, NotAfter: to,
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
}

// sign makes p's own certificate.
func (p *pki) sign(t testing.TB, template, parent *x509.Certificate, by *ecdsa.PrivateKey) (der []byte) {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, p.key.Public(), by)
	if err != nil {
		t.Fatal(err)
	}
	if p.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return der
}

// issue writes NAME.pem and NAME.key.
func (p *pki) issue(t testing.TB, name string, l leaf) (certFile, keyFile string) {
	t.Helper()
	key := newKey(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: l.from, NotAfter: l.to, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, DNSNames: l.names,
	}
	if l.client {
		template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	} else if l.names == nil {
		template.DNSNames = []string{"localhost"}
		template.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}
	}
	if template.NotBefore.IsZero() {
		template.NotBefore = time.Now().Add(-time.Hour)
	}
	if template.NotAfter.IsZero() {
		template.NotAfter = time.Now().Add(24 * time.Hour)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, p.cert, key.Public(), p.key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return p.write(t, name+".pem", "CERTIFICATE", der), p.write(t, name+".key", "PRIVATE KEY", keyDER)
}

func (p *pki) write(t testing.TB, name, kind string, der []byte) string {
	t.Helper()
	path := filepath.Join(p.dir, name)
	content := pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
	if kind == "CERTIFICATE" {
		content = append(content, p.chain...)
	}
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func overwrite(t testing.TB, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}
