package kmip

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"vmcryptfs/keys"
)

// tlsConfig returns the configuration of one handshake with a server: TLS 1.2 or newer, trusted
// by the provider's CA alone, with the name checked. asked reports whether the server requested
// this host's certificate.
func (id *identity) tlsConfig(host string) (config *tls.Config, asked *bool) {
	asked = new(bool)
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		RootCAs:    id.roots,
		ServerName: host,
		// Not by Certificates: package tls silently leaves those out when the server's list of
		// authorities lacks this host's CA.
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			*asked = true
			return &id.cert, nil
		},
	}, asked
}

// secure shakes hands on a connection, and closes the connection on failure. Errors name the
// wrong certificate, the file and the date.
func (c *Config) secure(ctx context.Context, raw net.Conn, addr string, id *identity) (*tls.Conn, error) {
	host := c.nameOf(addr)
	if err := validNow(id.leaf, "client certificate "+c.Cert); err != nil {
		raw.Close()
		return nil, &classified{keys.ErrUnreachable, err}
	}
	heard := &heardConn{Conn: raw}
	config, asked := id.tlsConfig(host)
	conn := tls.Client(heard, config)
	if err := conn.HandshakeContext(ctx); err != nil {
		raw.Close()
		return nil, c.explain(err, host, id, *asked, heard.heard)
	}
	id.peers.note(addr, conn.ConnectionState().VerifiedChains)
	return conn, nil
}

// plainDial leaves out the address; Error has the address already.
func plainDial(err error) error {
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Err != nil {
		return fmt.Errorf("connect: %w", op.Err)
	}
	return err
}

// explain turns an error of the handshake, or of the first read afterwards, into an error that
// names file and date, or says how to mend the fault. asked: the server requested this host's
// certificate. heard: the server sent something.
func (c *Config) explain(err error, host string, id *identity, asked, heard bool) error {
	if refusesClient(err, asked) {
		return &classified{keys.ErrRefused, fmt.Errorf("the server refuses client certificate %s (%s, issued by %s, valid until %s): %w",
			c.Cert, id.leaf.Subject, id.leaf.Issuer, date(id.leaf.NotAfter), plainAlert(err))}
	}
	failed, ok := errors.AsType[*tls.CertificateVerificationError](err)
	if !ok || len(failed.UnverifiedCertificates) == 0 {
		return &classified{keys.ErrUnreachable, explainHandshake(err, host, heard)}
	}
	return &classified{keys.ErrUnreachable, &untrusted{c.explainServer(failed, host, id), failed.UnverifiedCertificates[0]}}
}

// plainAlert leaves out "remote error".
func plainAlert(err error) error {
	if remote, ok := errors.AsType[*net.OpError](err); ok {
		return remote.Err
	}
	return err
}

// An untrusted says why a server's certificate is not trusted.
type untrusted struct {
	error
	cert *x509.Certificate
}

// explainServer returns the fault of the server's certificate.
func (c *Config) explainServer(failed *tls.CertificateVerificationError, host string, id *identity) error {
	leaf := failed.UnverifiedCertificates[0]
	if invalid, ok := errors.AsType[x509.CertificateInvalidError](failed.Err); ok && invalid.Reason == x509.Expired && invalid.Cert != nil {
		// The clock may have passed the end since the handshake: then the end of this function
		// explains.
		if err := validNow(invalid.Cert, c.role(invalid.Cert, leaf, id)); err != nil {
			return err
		}
	}
	if _, ok := errors.AsType[x509.HostnameError](failed.Err); ok {
		return c.explainName(leaf, host)
	}
	if unknown, ok := errors.AsType[x509.UnknownAuthorityError](failed.Err); ok {
		return c.explainIssuer(unknown, failed.UnverifiedCertificates, id)
	}
	if invalid, ok := errors.AsType[x509.CertificateInvalidError](failed.Err); ok && invalid.Cert != nil {
		if err := c.explainInvalid(invalid, leaf, id); err != nil {
			return err
		}
	}
	return fmt.Errorf("the server's certificate (%s, under CA %s, valid until %s): %w",
		leaf.Subject, c.CA, date(leaf.NotAfter), failed.Err)
}

// explainName reports another name in the server's certificate.
func (c *Config) explainName(leaf *x509.Certificate, host string) error {
	if len(leaf.DNSNames)+len(leaf.IPAddresses) == 0 && leaf.Subject.CommonName != "" {
		return fmt.Errorf("the server's certificate (%s, under CA %s, valid until %s) has its name as Common Name alone, which counts no more (RFC 9525): issue it again with the subject alternative name %s",
			leaf.Subject, c.CA, date(leaf.NotAfter), host)
	}
	return fmt.Errorf("the server's certificate (under CA %s, valid until %s) is for %s, not for %s: name one of its names as server_name in kms.toml if this is the right server",
		c.CA, date(leaf.NotAfter), names(leaf), host)
}

// role describes a certificate of the chain above a server's leaf, in words.
func (c *Config) role(cert, leaf *x509.Certificate, id *identity) string {
	switch {
	case slices.ContainsFunc(id.authority, cert.Equal):
		return fmt.Sprintf("CA certificate %s (%s)", c.CA, cert.Subject)
	case cert.Equal(leaf):
		return fmt.Sprintf("the server's certificate (%s, under CA %s)", leaf.Subject, c.CA)
	default:
		return fmt.Sprintf("the intermediate certificate (%s) that the server sends with its own (%s, under CA %s)",
			cert.Subject, leaf.Subject, c.CA)
	}
}

// validNow checks a certificate's dates.
func validNow(cert *x509.Certificate, what string) error {
	switch now := time.Now(); {
	case now.Before(cert.NotBefore):
		return fmt.Errorf("%s is not valid before %s", what, date(cert.NotBefore))
	case now.After(cert.NotAfter):
		return fmt.Errorf("%s expired on %s", what, date(cert.NotAfter))
	}
	return nil
}

func date(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 UTC") }

// names lists the names in a certificate.
func names(cert *x509.Certificate) string {
	list := append([]string{}, cert.DNSNames...)
	for _, ip := range cert.IPAddresses {
		list = append(list, ip.String())
	}
	if len(list) == 0 {
		return "no name at all"
	}
	return strings.Join(list, ", ")
}
