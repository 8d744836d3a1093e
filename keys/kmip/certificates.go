package kmip

import (
	"cmp"
	"crypto/x509"
	"slices"
	"strings"
	"sync"
)

// A Certificate is one that a provider's sessions stand on: when it ends, they do.
type Certificate struct {
	CertificateReport
	Role    string   // "client certificate", "CA certificate", "intermediate certificate" or "server certificate"
	Servers []string // host:port of those that it is of, or above; empty: of this host
}

// peers are the chains that the servers' certificates were trusted by at the last
// handshakes, by address.
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

// lastsLongest is the chain with which trust ends last.
func lastsLongest(chains [][]*x509.Certificate) []*x509.Certificate {
	if len(chains) == 0 {
		return nil
	}
	return slices.MaxFunc(chains, func(a, b []*x509.Certificate) int {
		return endsFirst(a).NotAfter.Compare(endsFirst(b).NotAfter)
	})
}

// endsFirst is the certificate above a server's own with which trust in it will end.
func endsFirst(chain []*x509.Certificate) *x509.Certificate {
	above := chain[min(1, len(chain)-1):] // the server's own may be the CA
	return slices.MinFunc(above, byEnd)
}

func byEnd(a, b *x509.Certificate) int { return a.NotAfter.Compare(b.NotAfter) }

// Certificates are those that sessions of this provider stand on, the one that ends first
// before the others: this host's and what its file has with it, those of the servers as of
// the last handshake with each, and what is above these. While no server was reached, of
// the CA's file the one that lasts longest stands for all. It reads the files again if
// they changed, and does no network I/O.
func (p *Provider) Certificates() []Certificate {
	c := p.cluster()
	id, _ := c.ids.get() // a replacement that cannot be used is told where it is tried
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

// place tells what the i-th certificate of a server's chain is, and its file if it has one.
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

// addCertificate adds a certificate once, with all the servers that it counts for.
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
