package kmip

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"
)

// Alerts of TLS (RFC 8446 §6) that point to a remedy.
const (
	alertHandshakeFailure     = tls.AlertError(40)
	alertBadCertificate       = tls.AlertError(42)
	alertCertificateUnknown   = tls.AlertError(46)
	alertUnknownCA            = tls.AlertError(48)
	alertAccessDenied         = tls.AlertError(49)
	alertProtocolVersion      = tls.AlertError(70)
	alertInsufficientSecurity = tls.AlertError(71)
	alertUnrecognizedName     = tls.AlertError(112)
	alertCertificateRequired  = tls.AlertError(116)
)

// isAlert reports whether err is one of these alerts from the server. Package tls has a type for
// QUIC alerts only; the texts are the same.
func isAlert(err error, alerts ...tls.AlertError) bool {
	remote, ok := errors.AsType[*net.OpError](err)
	return ok && remote.Op == "remote error" && slices.ContainsFunc(alerts, func(a tls.AlertError) bool { return remote.Err.Error() == a.Error() })
}

// refusesClient reports whether err is an alert about this host's certificate. asked: the server
// requested a certificate before.
func refusesClient(err error, asked bool) bool {
	for a := alertBadCertificate; a <= alertCertificateUnknown; a++ {
		if isAlert(err, a) {
			return true
		}
	}
	return isAlert(err, alertUnknownCA, alertAccessDenied, alertCertificateRequired) || asked && isAlert(err, alertHandshakeFailure)
}

// explainHandshake explains an error unrelated to certificates, with a remedy.
func explainHandshake(err error, host string, heard bool) error {
	_, noTLS := errors.AsType[tls.RecordHeaderError](err)
	switch {
	case isAlert(err, alertProtocolVersion) || strings.Contains(err.Error(), "unsupported protocol version"):
		return fmt.Errorf("the server has no TLS version in common with this host: enable TLS 1.2 or 1.3 at the server: %w", err)
	case isAlert(err, alertHandshakeFailure, alertInsufficientSecurity):
		return fmt.Errorf("the server has no cipher suite or curve in common with this host: enable at the server TLS 1.3, or one of ECDHE with AES-GCM or ChaCha20-Poly1305: %w", err)
	case isAlert(err, alertUnrecognizedName):
		return fmt.Errorf("the server knows itself by another name than %s: set server_name in kms.toml: %w", host, err)
	case noTLS:
		return fmt.Errorf("what answers there speaks no TLS: is it the KMIP port?: %w", err)
	case !heard && cutOff(err) && !strings.Contains(os.Getenv("GODEBUG"), "tlsmlkem=0"):
		return fmt.Errorf("TLS: the connection was accepted and the greeting not answered: %w; if the server is well, a firewall between may take no greeting of more than one packet: with GODEBUG=tlsmlkem=0 in the environment of vmcryptfs it fits into one, without post-quantum key exchange", err)
	}
	return fmt.Errorf("TLS: %w", err)
}

// cutOff reports whether a connection ended, or stayed silent for too long.
func cutOff(err error) bool {
	timeout, ok := errors.AsType[net.Error](err)
	return ok && timeout.Timeout() || errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) ||
		errors.Is(err, os.ErrDeadlineExceeded)
}

// A heardConn knows whether anything came from the other side.
type heardConn struct {
	net.Conn
	heard bool // for the goroutine that reads
}

func (h *heardConn) Read(b []byte) (int, error) {
	n, err := h.Conn.Read(b)
	h.heard = h.heard || n > 0
	return n, err
}

// explainIssuer says why a server's certificate is not trusted although, or since, no CA trusted
// by this host stands above the certificate.
func (c *Config) explainIssuer(unknown x509.UnknownAuthorityError, chain []*x509.Certificate, id *identity) error {
	leaf := chain[0]
	named, signed := false, false // by a trusted CA, some certificate of the chain
	for _, cert := range chain {
		for _, issuer := range slices.Concat(chain, id.authority) {
			if issuer.Equal(cert) || !bytes.Equal(issuer.RawSubject, cert.RawIssuer) {
				continue
			}
			if slices.ContainsFunc(id.authority, issuer.Equal) {
				named = true
				signed = signed || cert.CheckSignatureFrom(issuer) == nil
			}
			if err := c.explainSignature(cert, issuer, leaf, id); err != nil {
				return err
			}
		}
	}
	if _, hint, ok := strings.Cut(unknown.Error(), "(possibly because of "); ok && signed {
		return fmt.Errorf("%s is signed by the CA in %s, and a CA above it does not allow it: %s: have it issued so that the CA's constraints allow it",
			c.role(leaf, leaf, id), c.CA, strings.TrimSuffix(hint, ")"))
	}
	hint := ""
	if named {
		hint = ", though it has that CA's name: another key signed it; if that CA was renewed under the same name, put its new certificate into the file too"
	}
	return fmt.Errorf("the server's certificate (%s, issued by %s, valid until %s) is not signed by the CA in %s (%s, valid until %s)%s",
		leaf.Subject, leaf.Issuer, date(leaf.NotAfter), c.CA, id.authority[0].Subject, date(id.authority[0].NotAfter), hint)
}

// explainSignature returns the fault of the signature on cert by the key of issuer, a certificate
// with the name of cert's issuer; nil: no fault, or a different key signed.
func (c *Config) explainSignature(cert, issuer, leaf *x509.Certificate, id *identity) error {
	err := cert.CheckSignatureFrom(issuer)
	if err == nil {
		return nil
	}
	what := c.role(cert, leaf, id)
	if _, ok := errors.AsType[x509.InsecureAlgorithmError](err); ok {
		return fmt.Errorf("%s is signed with %s, which is not safe and not accepted: have it issued again with SHA-256", what, cert.SignatureAlgorithm)
	}
	if _, ok := errors.AsType[x509.ConstraintViolationError](err); ok {
		return fmt.Errorf("%s is signed by %s, which is no CA by its own words: that needs the basic constraint CA:TRUE and the key usage Certificate Sign",
			what, c.role(issuer, leaf, id))
	}
	return nil // by another key: only the issuer's name is the same
}

// explainInvalid says why a certificate of the chain is forbidden; nil: the reason is not known
// here.
func (c *Config) explainInvalid(invalid x509.CertificateInvalidError, leaf *x509.Certificate, id *identity) error {
	what := c.role(invalid.Cert, leaf, id)
	switch invalid.Reason {
	case x509.NotAuthorizedToSign:
		return fmt.Errorf("%s signs others and is no CA by its own words: that needs the basic constraint CA:TRUE", what)
	case x509.TooManyIntermediates:
		return fmt.Errorf("%s allows fewer CAs below it than there are (path length): have the server's certificate issued by a CA nearer to it", what)
	case x509.IncompatibleUsage:
		return fmt.Errorf("%s is not for servers: have it issued with the extended key usage Server Authentication", what)
	case x509.CANotAuthorizedForThisName, x509.UnconstrainedName, x509.NameConstraintsWithoutSANs:
		return fmt.Errorf("%s has a name that a CA above it does not allow (name constraints): %w: have it issued for a name that is allowed", what, invalid)
	}
	return nil
}

// pendingAlert returns the server's words before the server closed a session to which a request
// could not be written, else err. In TLS 1.3 this is the first occasion to hear the refusal of
// this host's certificate.
func (s *session) pendingAlert(err error) error {
	if !errors.Is(err, syscall.EPIPE) && !errors.Is(err, syscall.ECONNRESET) {
		return err
	}
	var b [1]byte
	if _, said := s.conn.Read(b[:]); said != nil {
		if remote, ok := errors.AsType[*net.OpError](said); ok && remote.Op == "remote error" {
			return said
		}
	}
	return err
}
