package kmip

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"time"
)

// An identity is this host's proof to a provider's servers, and the requirements for theirs.
// Immutable; sessions keep the identity of their opening.
type identity struct {
	cert      tls.Certificate
	leaf      *x509.Certificate
	roots     *x509.CertPool
	authority []*x509.Certificate // the certificates in roots
	chain     []*x509.Certificate // leaf and the other certificates of the file
	password  string
	peers     *peers   // of the provider
	stamps    [5]stamp // of the files read
}

// A stamp identifies the version of a file that was read.
type stamp struct {
	size int64
	time time.Time
	info fs.FileInfo
}

func (s stamp) same(o stamp) bool {
	return s.size == o.size && s.time.Equal(o.time) && os.SameFile(s.info, o.info)
}

// An identities reads a provider's identity again after a change of the files.
type identities struct {
	config *Config
	peers  peers

	mu      sync.Mutex // guards current
	current *identity
}

// get is the identity as the files are now. When a changed file cannot be used, as
// halfway through a replacement, the identity held stays, and the error says why.
func (i *identities) get() (*identity, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	stamps, err := i.config.stamps()
	if err == nil && i.current != nil && same(stamps, i.current.stamps) {
		return i.current, nil
	}
	if err == nil {
		var fresh *identity
		if fresh, err = i.config.readIdentity(); err == nil {
			fresh.stamps, fresh.peers = stamps, &i.peers
			i.current = fresh
		}
	}
	return i.current, err
}

func same(a, b [5]stamp) bool {
	for i := range a {
		if a[i].info != nil || b[i].info != nil {
			if a[i].info == nil || b[i].info == nil || !a[i].same(b[i]) {
				return false
			}
		}
	}
	return true
}

// stamps returns the stamps of the configured files. A private key or a password readable for
// others is refused.
func (c *Config) stamps() (stamps [5]stamp, err error) {
	for n, path := range []string{c.CA, c.Cert, c.Key, c.PasswordFile, c.KeyPassword} {
		if path == "" {
			continue
		}
		info, err := os.Stat(path)
		if err != nil {
			return stamps, fmt.Errorf("%s: %w", fileRole[n], err)
		}
		if secret := n >= 2; secret && info.Mode().Perm()&0o077 != 0 {
			return stamps, fmt.Errorf("%s %s can be read by others (mode %04o): run chmod 600 %s",
				fileRole[n], path, info.Mode().Perm(), path)
		}
		stamps[n] = stamp{info.Size(), info.ModTime(), info}
	}
	return stamps, nil
}

var fileRole = [5]string{"CA certificate", "client certificate", "client key", "password file", "password file of the client key"}

func (c *Config) readIdentity() (*identity, error) {
	id := &identity{roots: x509.NewCertPool()}
	authority, err := readCertificates(c.CA)
	if err != nil {
		return nil, fmt.Errorf("CA certificate %s: %w", c.CA, err)
	}
	id.authority = authority
	for _, cert := range authority {
		id.roots.AddCert(cert)
	}
	if id.cert, err = c.readPair(); err != nil {
		return nil, err
	}
	id.leaf = id.cert.Leaf
	if id.chain, err = x509.ParseCertificates(bytes.Join(id.cert.Certificate, nil)); err != nil {
		return nil, fmt.Errorf("client certificate %s: %w", c.Cert, err)
	}
	if c.PasswordFile != "" {
		password, err := readPassword(c.PasswordFile)
		if err != nil {
			return nil, fmt.Errorf("password file: %w", err)
		}
		id.password = string(password)
		clear(password)
	}
	return id, nil
}
