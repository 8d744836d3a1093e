package kmip

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/gemalto/kmip-go/kmip14"

	"vmcryptfs/keys"
	"vmcryptfs/keys/kmip/wire"
)

// A Probe is a key fetched from every server by Check.
type Probe struct {
	Key string                // identifier
	Use func(*keys.KEK) error // called with the key, by several goroutines; the key is wiped afterwards
}

// A ServerReport holds Check's findings about one server. The fields before Step are set up to
// the step that failed. Times are durations of steps.
type ServerReport struct {
	Address            string       // host:port
	Addresses          []netip.Addr // addresses of the host name
	Resolve            time.Duration
	Connect            time.Duration
	TLS                time.Duration
	RTT                time.Duration // one Discover Versions on the open session
	Server, Client, CA *CertificateReport
	Version            string   // agreed
	Versions           []string // offered
	Operations         []string // offered, by Query
	KeyState           keys.State
	Probe              time.Duration // Get and Use of the probe's key
	Step               string        // the failed step: "resolve", "connect", "tls", "versions", "operations", "key"; empty: all well
	Err                error         // why the step failed
}

// A CertificateReport is the content of a certificate. Server's is present even for an untrusted
// certificate. CA's is the certificate of the chain above the server's that ends first; before
// there is a chain, the first certificate of the CA file.
type CertificateReport struct {
	Subject, Issuer     string
	NotBefore, NotAfter time.Time
	File                string // empty for a certificate sent by the server
}

func newCertificateReport(cert *x509.Certificate, file string) *CertificateReport {
	return &CertificateReport{cert.Subject.String(), cert.Issuer.String(), cert.NotBefore, cert.NotAfter, file}
}

// Check asks every server, suspect ones too, side by side, each on a session of its own and
// within a server's share of the provider's timeout. probe may be nil. The reports are in the
// order of the configuration. The provider's knowledge about its servers stays unchanged.
func (p *Provider) Check(ctx context.Context, probe *Probe) []ServerReport {
	now := p.cluster()
	reports := make([]ServerReport, len(now.servers))
	var running sync.WaitGroup
	for i, s := range now.servers {
		running.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, now.config.serverTimeout())
			defer cancel()
			c := checker{provider: p, server: s, probe: probe, report: &reports[i]}
			reports[i].Address = s.address
			reports[i].Step, reports[i].Err = c.run(ctx)
		})
	}
	running.Wait()
	return reports
}

// A checker checks one server.
type checker struct {
	provider *Provider
	server   *server
	probe    *Probe
	report   *ServerReport
}

// run goes on until a step fails.
func (c *checker) run(ctx context.Context) (step string, err error) {
	host, port, err := net.SplitHostPort(c.server.address)
	if err != nil {
		return "resolve", err
	}
	if err := c.timed(&c.report.Resolve, func() (err error) {
		c.report.Addresses, err = net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		for i, a := range c.report.Addresses {
			c.report.Addresses[i] = a.Unmap()
		}
		return err
	}); err != nil {
		return "resolve", err
	}
	var raw net.Conn
	if err := c.timed(&c.report.Connect, func() (err error) {
		raw, err = race(ctx, raceOrder(c.report.Addresses), func(ctx context.Context, at netip.Addr) (net.Conn, error) {
			return dial(ctx, at, port)
		})
		return err
	}); err != nil {
		return "connect", plainDial(err)
	}
	s, err := c.secure(ctx, raw)
	if err != nil {
		return "tls", err
	}
	defer s.close()
	return c.ask(ctx, s)
}

// secure shakes hands and reports the certificates.
func (c *checker) secure(ctx context.Context, raw net.Conn) (*session, error) {
	config := c.server.config
	id, err := c.server.identities.get()
	if id == nil {
		raw.Close()
		return nil, err
	}
	c.report.Client = newCertificateReport(id.leaf, config.Cert)
	c.report.CA = newCertificateReport(id.authority[0], config.CA)
	var s *session
	err = c.timed(&c.report.TLS, func() error {
		conn, err := config.secure(ctx, raw, c.server.address, id)
		if err == nil {
			s = newSession(conn, config, config.nameOf(c.server.address), id)
		}
		return err
	})
	if bad, ok := errors.AsType[*untrusted](err); ok {
		c.report.Server = newCertificateReport(bad.cert, "")
	}
	if s != nil {
		state := s.conn.ConnectionState()
		c.report.Server = newCertificateReport(state.PeerCertificates[0], "")
		ca := endsFirst(lastsLongest(state.VerifiedChains))
		c.report.CA = newCertificateReport(ca, "")
		if slices.ContainsFunc(id.authority, ca.Equal) {
			c.report.CA.File = config.CA
		}
	}
	return s, err
}

// ask goes through the steps on an open connection.
func (c *checker) ask(ctx context.Context, s *session) (step string, err error) {
	if step, err := c.versions(ctx, s); err != nil {
		return step, err
	}
	operations, err := s.query(ctx)
	if _, refused := errors.AsType[*result](err); err != nil && !refused {
		return "operations", err // a refusal is no failure: no needed request asks for operations
	}
	for _, o := range operations {
		c.report.Operations = append(c.report.Operations, kmip14.Operation(o).String())
	}
	if c.probe == nil {
		return "", nil
	}
	if err := c.timed(&c.report.Probe, func() error { return c.use(ctx, s) }); err != nil {
		return "key", err
	}
	return "", nil
}

// versions agrees on a version and asks for the server's versions.
func (c *checker) versions(ctx context.Context, s *session) (step string, err error) {
	if err := s.negotiate(ctx); err != nil {
		return refusedStep(err), err
	}
	c.report.Version = s.version.String()
	var offered []wire.Version
	err = c.timed(&c.report.RTT, func() (err error) {
		offered, err = s.discoverBy(ctx)
		return err
	})
	if _, refused := errors.AsType[*result](err); refused && s.config.Version != "" {
		return "", nil // a configured version needs no right to ask
	}
	if err != nil {
		return refusedStep(err), err
	}
	for _, v := range offered {
		c.report.Versions = append(c.report.Versions, v.String())
	}
	if s.config.Version != "" && !slices.Contains(offered, s.version) {
		return "versions", fmt.Errorf("the server speaks KMIP %v, not %s, which kms.toml has as version", offered, s.config.Version)
	}
	return "", nil
}

// refusedStep is where a check ended with the first request: with TLS 1.3 a server refuses
// a client's certificate only then.
func refusedStep(err error) string {
	if _, answered := errors.AsType[*result](err); errors.Is(err, keys.ErrRefused) && !answered {
		return "tls"
	}
	return "versions"
}

// use fetches the probe's key and calls Use.
func (c *checker) use(ctx context.Context, s *session) error {
	kek, a, err := c.provider.fetch(ctx, s, c.probe.Key)
	c.report.KeyState = a.state
	if err != nil {
		return err
	}
	defer kek.Wipe()
	return c.probe.Use(kek)
}

func (c *checker) timed(took *time.Duration, f func() error) error {
	begin := time.Now()
	err := f()
	*took = time.Since(begin)
	return err
}
