package devkms

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// The files of the authority. The private keys have mode 0600.
const (
	caFile        = "ca.pem"
	caKeyFile     = "ca.key"
	serverFile    = "server.pem"
	serverKeyFile = "server.key"
	clientFile    = "client.pem"
	clientKeyFile = "client.key"
)

const (
	day         = 24 * time.Hour
	caDays      = 20 * 365
	leafDays    = 5 * 365
	renewBefore = 60 * day // at start, leaves with less time left are made anew
)

// An authority is the server's own CA with a certificate for itself and one for
// clients.
type authority struct {
	dir  string
	ca   tls.Certificate
	self tls.Certificate
}

// openAuthority loads the certificates in dir, and makes those missing or ending soon.
func openAuthority(dir string) (*authority, error) {
	a := &authority{dir: dir}
	var err error
	a.ca, err = a.load(caFile, caKeyFile, func() (*x509.Certificate, *x509.Certificate, any) {
		template := template("vmcryptfs development KMS CA", caDays)
		template.IsCA, template.BasicConstraintsValid = true, true
		template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
		return template, nil, nil
	})
	if err != nil {
		return nil, err
	}
	a.self, err = a.load(serverFile, serverKeyFile, func() (*x509.Certificate, *x509.Certificate, any) {
		leaf := template("vmcryptfs development KMS", leafDays)
		leaf.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		leaf.DNSNames = []string{"localhost"}
		leaf.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}
		return leaf, a.ca.Leaf, a.ca.PrivateKey
	})
	if err != nil {
		return nil, err
	}
	_, err = a.load(clientFile, clientKeyFile, func() (*x509.Certificate, *x509.Certificate, any) {
		leaf := template("vmcryptfs host", leafDays)
		leaf.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
		return leaf, a.ca.Leaf, a.ca.PrivateKey
	})
	return a, err
}

// server returns the TLS configuration of the server: no session without a client certificate of
// this CA.
func (a *authority) server() *tls.Config {
	pool := x509.NewCertPool()
	pool.AddCert(a.ca.Leaf)
	return &tls.Config{
		MinVersion:   tls.VersionTLS12,
		Certificates: []tls.Certificate{a.self},
		ClientAuth:   tls.RequireAndVerifyClientCert,
		ClientCAs:    pool,
	}
}

// load loads a certificate with its key, and makes a new pair for a certificate that is missing,
// ends soon or was signed by another CA. makes returns template, parent and the parent's key
// (nil: self-signed).
func (a *authority) load(certFile, keyFile string, makes func() (*x509.Certificate, *x509.Certificate, any)) (tls.Certificate, error) {
	certPath, keyPath := filepath.Join(a.dir, certFile), filepath.Join(a.dir, keyFile)
	template, parent, parentKey := makes()
	pair, err := tls.LoadX509KeyPair(certPath, keyPath)
	switch {
	case err == nil && time.Until(pair.Leaf.NotAfter) > renewBefore &&
		(parent == nil || pair.Leaf.CheckSignatureFrom(parent) == nil):
		return pair, nil
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return tls.Certificate{}, fmt.Errorf("%s: %w", certPath, err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	if parent == nil {
		parent, parentKey = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), parentKey)
	if err != nil {
		return tls.Certificate{}, err
	}
	if err := writePair(certPath, keyPath, der, key); err != nil {
		return tls.Certificate{}, err
	}
	return tls.LoadX509KeyPair(certPath, keyPath)
}

// writePair writes the key first: a certificate without a key would be an error at the next
// start, a key without a certificate is replaced.
func writePair(certPath, keyPath string, der []byte, key *ecdsa.PrivateKey) error {
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	if err := os.Remove(certPath); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := writeFile(keyPath, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), 0o600); err != nil {
		return err
	}
	return writeFile(certPath, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644)
}

func template(name string, days int) *x509.Certificate {
	// 128 random bits, as CAs use; rand.Text would be longer than a serial number may be.
	var serial [16]byte
	_, _ = rand.Read(serial[:]) // never fails (crypto/rand)
	serial[0] &= 0x7f
	return &x509.Certificate{
		SerialNumber: new(big.Int).SetBytes(serial[:]),
		Subject:      pkix.Name{Organization: []string{"vmcryptfs"}, CommonName: name},
		NotBefore:    time.Now().Add(-time.Hour), // clocks differ
		NotAfter:     time.Now().Add(time.Duration(days) * day),
		KeyUsage:     x509.KeyUsageDigitalSignature,
	}
}
