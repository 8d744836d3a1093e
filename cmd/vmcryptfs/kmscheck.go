package main

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

// checkedProvider is a provider as kms check found it. Times are in milliseconds.
type checkedProvider struct {
	Name     string          `json:"name"`
	OK       bool            `json:"ok"`            // at least one server serves
	Key      string          `json:"key,omitempty"` // fetched from every server and used; empty: none is known here
	Servers  []checkedServer `json:"servers"`
	Warnings []string        `json:"warnings"`
}

// checkedServer is one server: what is empty was not reached.
type checkedServer struct {
	Address    string       `json:"address"`
	OK         bool         `json:"ok"`
	Step       string       `json:"step,omitempty"` // where it ended: "resolve", "connect", "tls", "versions", "operations" or "key"
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
	Server     *certificate `json:"server_certificate,omitempty"`
	Client     *certificate `json:"client_certificate,omitempty"`
	CA         *certificate `json:"ca_certificate,omitempty"`
}

type certificate struct {
	Subject   string    `json:"subject"`
	Issuer    string    `json:"issuer"`
	NotBefore time.Time `json:"not_before"`
	NotAfter  time.Time `json:"not_after"`
	File      string    `json:"file,omitempty"`
}

// kmsCheck asks every server of the providers whether this host can use its keys.
func (p *program) kmsCheck(ctx context.Context, args []string) error {
	var k keyFlags
	f := p.flags("kms check")
	backing := f.String("datastore", "", "try the key of this datastore, a BACKING (default: a key that a mount on this host holds)")
	asJSON := f.Bool("json", false, "print JSON")
	k.add(f)
	names, err := p.parse(f, args, "[PROVIDER…] [--datastore BACKING] [--json]", 0, -1)
	if err != nil {
		return err
	}
	known, err := knownKeys(ctx, *backing)
	if err != nil {
		return err
	}
	if err := keys.HardenProcess(); err != nil {
		return fmt.Errorf("protect the memory for keys: %w", err)
	}
	source, err := openKMS(ctx, k)
	if err != nil {
		return err
	}
	defer source.Close()
	providers, err := source.KMIP(names)
	if err != nil {
		return err
	}
	checked := []checkedProvider{}
	var failed []error
	for _, provider := range providers {
		c, err := checkProvider(ctx, provider, known)
		checked = append(checked, c)
		failed = append(failed, err)
	}
	if *asJSON {
		return errors.Join(append(failed, p.printJSON(checked))...)
	}
	for i := range checked {
		checked[i].print(page{to: p.stdout}, i > 0)
	}
	return errors.Join(failed...)
}

// checkProvider checks one provider with the first key of it that is known, and gives an
// error if no server serves.
func checkProvider(ctx context.Context, p *kmip.Provider, known []knownKey) (checkedProvider, error) {
	c := checkedProvider{Name: p.Name(), Servers: []checkedServer{}, Warnings: []string{}}
	known = slices.DeleteFunc(slices.Clone(known), func(k knownKey) bool { return !k.of(p) })
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
	for _, r := range reports {
		why = append(why, r.Address+": "+stepText(r.Step, r.Err.Error()))
		errs = append(errs, r.Err)
	}
	return c, &kmsError{fmt.Sprintf("provider %s cannot serve: %s", c.Name, strings.Join(why, "; ")), errors.Join(errs...)}
}

func newCheckedServer(r *kmip.ServerReport) checkedServer {
	s := checkedServer{
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

func newCertificate(r *kmip.CertificateReport) *certificate {
	if r == nil {
		return nil
	}
	return &certificate{r.Subject, r.Issuer, r.NotBefore, r.NotAfter, r.File}
}

func milliseconds(d time.Duration) float64 {
	return float64(d.Round(10*time.Microsecond)) / float64(time.Millisecond)
}
