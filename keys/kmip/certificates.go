package kmip

import (
	"cmp"
	"crypto/x509"
	"slices"
	"strings"
	"sync"
)

// A Certificate is one of those needed by a provider's sessions: when the certificate ends, so do
// the sessions.
type Certificate struct {
	CertificateReport
	Role    string   // "client certificate", "CA certificate", "intermediate certificate" or "server certificate"
	Servers []string // host:port of the servers with or under the certificate; empty: of this host
}

// peers are the chains by which the servers' certificates were trusted at the last handshakes, by
// address.
type peers struct {
	mu     sync.Mutex
	chains map[string][]*x509.Certificate
}

func (p *peers) note(address string, chains [][]*x509.Certificate) {
	p.keep(address, lastsLongest(chains))
}

func (p *peers) keep(address string, chain []*x509.Certificate) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.chains == nil {
		p.chains = map[string][]*x509.Certificate{}
	}
	p.chains[address] = chain
}

func (p *peers) of(address string) []*x509.Certificate {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.chains[address]
}

// lastsLongest returns the chain whose trust ends last.
func lastsLongest(chains [][]*x509.Certificate) []*x509.Certificate {
	if len(chains) == 0 {
		return nil
	}
	return slices.MaxFunc(chains, func(a, b []*x509.Certificate) int {
		return endsFirst(a).NotAfter.Compare(endsFirst(b).NotAfter)
	})
}

// endsFirst returns the certificate above a server's own that ends first, and trust with it.
func endsFirst(chain []*x509.Certificate) *x509.Certificate {
	above := chain[min(1, len(chain)-1):] // the server's own may be the CA
	return slices.MinFunc(above, byEnd)
}

func byEnd(a, b *x509.Certificate) int { return a.NotAfter.Compare(b.NotAfter) }

// Certificates returns the certificates needed by sessions of this provider, in the order of
// their ends, the first end first: this host's with the rest of its file, the servers' as of the
// last handshake with each, and the CAs above. While no server was reached, the longest-lasting
// certificate of the CA file stands for all. Changed files are read again. Certificates does no
// network I/O.
func (p *Provider) Certificates() []Certificate {
	c := p.cluster()
	id, _ := c.ids.get() // an unusable replacement is reported where the replacement is tried
	var list []Certificate
	for i, cert := range id.chain {
		role := "client certificate"
		if i > 0 {
			role = "intermediate certificate"
		}
		list = addCertificate(list, cert, role, c.config.Cert, "")
	}
	reached := false
	for _, address := range c.config.Servers {
		for i, cert := range id.peers.of(address) {
			role, file := c.config.place(cert, i, id)
			list = addCertificate(list, cert, role, file, address)
			reached = true
		}
	}
	if !reached {
		list = addCertificate(list, slices.MaxFunc(id.authority, byEnd), "CA certificate", c.config.CA, "")
	}
	slices.SortStableFunc(list, func(a, b Certificate) int {
		return cmp.Or(a.NotAfter.Compare(b.NotAfter), strings.Compare(a.Role, b.Role))
	})
	return list
}

// place returns the role of the i-th certificate in a server's chain, and the file if there is
// one.
func (c *Config) place(cert *x509.Certificate, i int, id *identity) (role, file string) {
	switch {
	case slices.ContainsFunc(id.authority, cert.Equal):
		return "CA certificate", c.CA
	case i == 0:
		return "server certificate", ""
	default:
		return "intermediate certificate", ""
	}
}

// addCertificate adds a certificate once, with all servers concerned.
func addCertificate(list []Certificate, cert *x509.Certificate, role, file, server string) []Certificate {
	report := *newCertificateReport(cert, file)
	i := slices.IndexFunc(list, func(c Certificate) bool { return c.CertificateReport == report && c.Role == role })
	if i < 0 {
		list = append(list, Certificate{CertificateReport: report, Role: role})
		i = len(list) - 1
	}
	if server != "" && !slices.Contains(list[i].Servers, server) {
		list[i].Servers = append(list[i].Servers, server)
	}
	return list
}
