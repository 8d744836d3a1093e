package doctor

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"vmcryptfs/keys"
	"vmcryptfs/keys/kmip"
)

// Provider is the result of a check of one provider. Times are in milliseconds.
type Provider struct {
	Name     string   `json:"name"`
	OK       bool     `json:"ok"`            // at least one server serves
	Key      string   `json:"key,omitempty"` // fetched from every server and used; empty: none is known here
	Servers  []Server `json:"servers"`
	Warnings []string `json:"warnings"`
}

// Server is the result of a check of one server. Fields beyond the failed step are empty.
type Server struct {
	Address    string       `json:"address"`
	OK         bool         `json:"ok"`
	Step       string       `json:"step,omitempty"` // the failed step: "resolve", "connect", "tls", "versions", "operations" or "key"
	Error      string       `json:"error,omitempty"`
	Addresses  []netip.Addr `json:"addresses"`
	ResolveMS  float64      `json:"resolve_ms"`
	ConnectMS  float64      `json:"connect_ms"`
	TLSMS      float64      `json:"tls_ms"`
	RTTMS      float64      `json:"rtt_ms"`   // one request on an open session
	ProbeMS    float64      `json:"probe_ms"` // fetch the key, wrap and unwrap
	Version    string       `json:"version"`  // agreed KMIP version
	Versions   []string     `json:"versions"`
	Operations []string     `json:"operations"`
	KeyState   string       `json:"key_state,omitempty"`
	Server     *Certificate `json:"server_certificate,omitempty"`
	Client     *Certificate `json:"client_certificate,omitempty"`
	CA         *Certificate `json:"ca_certificate,omitempty"`
}

// Certificate is a certificate on which a session with a server depends.
type Certificate struct {
	Subject   string    `json:"subject"`
	Issuer    string    `json:"issuer"`
	NotBefore time.Time `json:"not_before"`
	NotAfter  time.Time `json:"not_after"`
	File      string    `json:"file,omitempty"`
}

// Check checks every server of p, with the first of p's known keys. Where no server serves, the
// error is an *Error with a reason for each server, and the Provider still holds all results.
func Check(ctx context.Context, p *kmip.Provider, known []KnownKey) (Provider, error) {
	c := Provider{Name: p.Name(), Servers: []Server{}, Warnings: []string{}}
	known = slices.DeleteFunc(slices.Clone(known), func(k KnownKey) bool { return !k.of(p) })
	var probe *kmip.Probe
	if len(known) > 0 {
		c.Key = known[0].ID
		probe = &kmip.Probe{Key: c.Key, Use: func(kek *keys.KEK) error { return tryKey(kek, known[0].Check) }}
	}
	reports := p.Check(ctx, probe)
	for i := range reports {
		c.Servers = append(c.Servers, newCheckedServer(&reports[i]))
		c.OK = c.OK || reports[i].Err == nil
	}
	c.warn(ctx, p, reports, known)
	if c.OK {
		return c, nil
	}
	var why []string
	var errs []error
	for i, r := range reports {
		why = append(why, r.Address+": "+c.Servers[i].Failure())
		errs = append(errs, r.Err)
	}
	return c, &Error{fmt.Sprintf("provider %s cannot serve: %s", c.Name, strings.Join(why, "; ")), errors.Join(errs...)}
}

func newCheckedServer(r *kmip.ServerReport) Server {
	s := Server{
		Address: r.Address, OK: r.Err == nil, Step: r.Step, Addresses: append([]netip.Addr{}, r.Addresses...),
		ResolveMS: milliseconds(r.Resolve), ConnectMS: milliseconds(r.Connect), TLSMS: milliseconds(r.TLS),
		RTTMS: milliseconds(r.RTT), ProbeMS: milliseconds(r.Probe),
		Version: r.Version, Versions: append([]string{}, r.Versions...), Operations: append([]string{}, r.Operations...),
		Server: newCertificate(r.Server), Client: newCertificate(r.Client), CA: newCertificate(r.CA),
	}
	if r.Err != nil {
		s.Error = r.Err.Error()
	}
	if r.KeyState != keys.StateUnknown {
		s.KeyState = r.KeyState.String()
	}
	return s
}

func newCertificate(r *kmip.CertificateReport) *Certificate {
	if r == nil {
		return nil
	}
	return &Certificate{r.Subject, r.Issuer, r.NotBefore, r.NotAfter, r.File}
}

func milliseconds(d time.Duration) float64 {
	return float64(d.Round(10*time.Microsecond)) / float64(time.Millisecond)
}

// Failure names the last step of the check of s, and the reason. Most errors begin with the step.
func (s *Server) Failure() string {
	if strings.HasPrefix(s.Error, s.Step+":") {
		return s.Error
	}
	return s.Step + ": " + s.Error
}

// Error says that no server of a provider serves. errors.Is finds keys.ErrNoKey.
type Error struct {
	text string
	err  error
}

// Error says of each server why.
func (e *Error) Error() string { return e.text }

// Unwrap gives keys.ErrNoKey and the errors of the servers.
func (e *Error) Unwrap() []error { return []error{keys.ErrNoKey, e.err} }
