package kmip_test

import (
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"log/slog"
	"math/big"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"vmcryptfs/keys"
	"vmcryptfs/keys/kmip"
)

// serveTLS starts a server that calls do with each connection, until the end of the test.
func serveTLS(t *testing.T, do func(net.Conn)) (address string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			running.Go(func() { defer conn.Close(); do(conn) })
		}
	})
	t.Cleanup(func() { listener.Close(); running.Wait() })
	return listener.Addr().String()
}

// shakes returns a server's function that shakes hands and ends the connection.
func shakes(config *tls.Config) func(net.Conn) {
	return func(conn net.Conn) {
		server := tls.Server(conn, config)
		if server.Handshake() == nil {
			var b [1]byte
			_, _ = server.Read(b[:])
		}
	}
}

// pairOf returns a server's certificate, changed by edit and signed by p; issuers follow in the
// chain.
func (p *pki) pairOf(t *testing.T, edit func(template *x509.Certificate), issuers ...*pki) tls.Certificate {
	t.Helper()
	key := newKey(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "kms1"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	edit(template)
	der, err := x509.CreateCertificate(rand.Reader, template, p.cert, key.Public(), p.key)
	if err != nil {
		t.Fatal(err)
	}
	pair := tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	for _, issuer := range issuers {
		pair.Certificate = append(pair.Certificate, issuer.cert.Raw)
	}
	return pair
}

// caOf makes a CA below p, or a root CA when p is nil.
func caOf(t *testing.T, p *pki, name string, edit func(*x509.Certificate)) *pki {
	t.Helper()
	ca := &pki{dir: t.TempDir(), key: newKey(t)}
	template := caTemplate(name, time.Now().Add(-time.Hour), time.Now().Add(time.Hour))
	edit(template)
	parent, by := template, ca.key
	if p != nil {
		parent, by = p.cert, p.key
	}
	ca.ca = ca.write(t, "ca.pem", "CERTIFICATE", ca.sign(t, template, parent, by))
	return ca
}

func same(*x509.Certificate) {}

// TestServerWords: each fault of a server or its certificate has its own words, with a remedy.
func TestServerWords(t *testing.T) {
	t.Parallel()
	root := newPKI(t)
	base := root.config(t)
	config := func(c *tls.Config, pair tls.Certificate) func(net.Conn) {
		c.Certificates = []tls.Certificate{pair}
		return shakes(c)
	}
	well := root.pairOf(t, same)
	noCA := caOf(t, root, "no CA", func(c *x509.Certificate) { c.IsCA, c.KeyUsage = false, x509.KeyUsageDigitalSignature })
	noSign := caOf(t, root, "no sign", func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageCRLSign })
	short := caOf(t, nil, "short", func(c *x509.Certificate) { c.MaxPathLenZero = true })
	below := caOf(t, short, "below", same)
	narrow := caOf(t, nil, "narrow", func(c *x509.Certificate) {
		c.PermittedDNSDomains, c.PermittedDNSDomainsCritical = []string{"elsewhere.example"}, true
		c.ExcludedIPRanges = []*net.IPNet{{IP: net.IPv4(127, 0, 0, 0).To4(), Mask: net.CIDRMask(8, 32)}}
	})
	renewed := caOf(t, nil, "test CA", same) // of the same name, with another key
	sha1CA := opensslChain(t, "-sha1")
	for _, c := range []struct {
		name  string
		ca    string
		serve func(net.Conn)
		words []string
	}{
		{"an old version", root.ca, config(&tls.Config{MaxVersion: tls.VersionTLS11}, well), []string{"no TLS version in common", "enable TLS 1.2 or 1.3 at the server"}},
		{"an old cipher", root.ca, config(&tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_RSA_WITH_AES_256_GCM_SHA384}}, well),
			[]string{"no cipher suite or curve in common", "enable at the server TLS 1.3"}},
		{"no TLS", root.ca, func(conn net.Conn) { _, _ = conn.Write([]byte("220 mail.example ESMTP\r\n")) }, []string{"speaks no TLS: is it the KMIP port?"}},
		{"no CA", root.ca, config(&tls.Config{}, noCA.pairOf(t, same, noCA)), []string{"CN=no CA", "no CA by its own words", "CA:TRUE"}},
		{"no right to sign", root.ca, config(&tls.Config{}, noSign.pairOf(t, same, noSign)), []string{"CN=no sign", "no CA by its own words", "Certificate Sign"}},
		{"path length", short.ca, config(&tls.Config{}, below.pairOf(t, same, below)), []string{"allows fewer CAs below it", "(path length)"}},
		{"name constraints", narrow.ca, config(&tls.Config{}, narrow.pairOf(t, same)), []string{"127.0.0.1", "constraint"}},
		{"a CA of the same name", root.ca, config(&tls.Config{}, renewed.pairOf(t, same)), []string{"another key signed it", "renewed under the same name", root.ca}},
		{"not for servers", root.ca, config(&tls.Config{}, root.pairOf(t, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} })),
			[]string{"not for servers", "Server Authentication"}},
		{"a Common Name alone", root.ca, config(&tls.Config{}, root.pairOf(t, func(c *x509.Certificate) { c.IPAddresses = nil })),
			[]string{"CN=kms1", "Common Name alone", "subject alternative name 127.0.0.1"}},
		{"SHA-1", sha1CA.ca, config(&tls.Config{}, sha1CA.pair), []string{"signed with", "SHA1", "have it issued again with SHA-256"}},
		{"no greeting of two packets", root.ca, func(conn net.Conn) {
			var b [4096]byte
			if n, _ := conn.Read(b[:]); n < 1400 {
				return
			}
			_ = conn.(*net.TCPConn).SetLinger(0) // a reset
		}, []string{"GODEBUG=tlsmlkem=0", "greeting"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			address := serveTLS(t, c.serve)
			cfg := base
			cfg.Servers, cfg.CA = []string{address}, c.ca
			err := open(t, cfg).Check(t.Context(), nil)[0].Err
			if err == nil {
				t.Fatal("no error")
			}
			for _, words := range c.words {
				if !strings.Contains(err.Error(), words) {
					t.Errorf("%v\nhas no %q", err, words)
				}
			}
			for _, wrong := range []string{"refuses client certificate", "is not signed by the CA"} {
				if strings.Contains(err.Error(), wrong) && c.name != "a CA of the same name" {
					t.Errorf("%v\nhas %q", err, wrong)
				}
			}
		})
	}
}

type sha1Chain struct {
	ca   string
	pair tls.Certificate
}

// opensslChain has openssl sign a server's certificate, as Go does not with SHA-1.
func opensslChain(t *testing.T, digest string) sha1Chain {
	t.Helper()
	dir := t.TempDir()
	ec := []string{"-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc"}
	openssl(t, dir, append([]string{"req", "-x509", "-subj", "/CN=old CA", "-keyout", "ca.key", "-out", "ca.pem"}, ec...)...)
	openssl(t, dir, append([]string{"req", "-new", "-subj", "/CN=old", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "s.key", "-out", "s.csr"}, ec...)...)
	openssl(t, dir, "x509", "-req", digest, "-in", "s.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-copy_extensions", "copyall", "-out", "s.pem")
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, "s.pem"), filepath.Join(dir, "s.key"))
	if err != nil {
		t.Fatal(err)
	}
	return sha1Chain{filepath.Join(dir, "ca.pem"), pair}
}

// TestRefusedClient: the error of a server that refuses this host's certificate says so, even
// where TLS 1.3 delays the refusal until the first request, which may not be written any more.
func TestRefusedClient(t *testing.T) {
	t.Parallel()
	root, other := newPKI(t), newPKI(t)
	pool := x509.NewCertPool()
	pool.AddCert(root.cert)
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		address := serveTLS(t, shakes(&tls.Config{MinVersion: version, MaxVersion: version,
			Certificates: []tls.Certificate{root.pairOf(t, same)}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool}))
		config := root.config(t, address)
		config.Cert, config.Key = other.issue(t, "stranger", leaf{client: true})
		for range 10 {
			for _, config.Version = range []string{"", "1.2"} {
				p, err := kmip.Open(config, slog.New(slog.DiscardHandler))
				if err != nil {
					t.Fatal(err)
				}
				_, _, err = p.Get(t.Context(), "1", nil)
				if !errors.Is(err, keys.ErrRefused) || !strings.Contains(err.Error(), "refuses client certificate "+config.Cert) {
					t.Errorf("TLS %x, version %q: %v", version, config.Version, err)
				}
				p.Close()
			}
		}
	}
}
