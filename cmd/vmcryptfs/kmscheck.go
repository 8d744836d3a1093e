package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"vmcryptfs/fs/admin"
	"vmcryptfs/fs/admin/mounts"
	"vmcryptfs/fs/datastore"
	"vmcryptfs/keys"
	"vmcryptfs/keys/kmip"
)

// soon is how long before the end of a certificate or key a warning begins.
const soon = 30 * 24 * time.Hour

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
	defer source.close()
	providers, err := source.kmipProviders(names)
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

// knownKey is a key that this host knows of, and where it is used.
type knownKey struct {
	keys.Ref
	servers []string // of the provider, where the name alone does not tell which it is
	dirs    []string // of its datastore
	pid     int      // of the daemon that serves the datastore; 0: none
}

// of tells if the key is one of p.
func (k *knownKey) of(p keys.Provider) bool {
	if k.Provider != p.Name() {
		return false
	}
	return k.servers == nil || slices.ContainsFunc(p.Health(), func(h keys.ServerHealth) bool {
		return slices.Contains(k.servers, h.Address)
	})
}

// knownKeys are the keys that mounts on this host hold and, first, that of the datastore
// at backing, if one is named.
func knownKeys(ctx context.Context, backing string) (known []knownKey, err error) {
	if backing != "" {
		at, _, err := mounts.Backing(backing)
		if err != nil {
			return nil, err
		}
		store, err := datastore.Open(at, false)
		if err != nil {
			return nil, err
		}
		defer store.Close()
		// With the check value, if this host remembers it: a KMS restored empty shows.
		if err := store.Trust("", "", false); err != nil {
			return nil, err
		}
		known = append(known, knownKey{Ref: store.KEK(), dirs: []string{store.Path()}})
	}
	dir, err := datastore.RunDir()
	if err != nil {
		return nil, err
	}
	clients, found, _ := admin.Mounts(ctx, dir) // one that does not answer tells no keys
	for i, client := range clients {
		status, err := client.Status(ctx)
		if err != nil {
			continue
		}
		held := status.Keys
		slices.SortStableFunc(held, func(a, b admin.Key) int {
			return trueFirst(a.KeyName == status.KEK, b.KeyName == status.KEK)
		})
		for _, key := range held {
			known = append(known, knownKey{
				Ref:     keys.Ref{Provider: key.Provider, ID: key.Identifier},
				servers: serversOf(status, key.Provider),
				dirs:    []string{found[i].Backing, found[i].Mountpoint}, pid: found[i].PID,
			})
		}
	}
	return known, nil
}

// serversOf are the addresses of a mount's provider, never nil.
func serversOf(s admin.Status, provider string) []string {
	list := []string{}
	for _, p := range s.Providers {
		if p.Name == provider {
			for _, server := range p.Servers {
				list = append(list, server.Address)
			}
		}
	}
	return list
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

// warn collects what will be trouble.
func (c *checkedProvider) warn(ctx context.Context, p *kmip.Provider, reports []kmip.ServerReport, known []knownKey) {
	now := time.Now()
	for i := range reports {
		c.warnServer(&reports[i], now)
	}
	c.warnKeys(ctx, p, known, now)
	guests := map[int]guest{} // by pid: a datastore may have many keys
	for _, k := range known {
		for _, g := range guestsOf("/proc", k.dirs, k.pid) {
			guests[g.pid] = g
		}
	}
	if len(guests) == 0 {
		return
	}
	local := localAddresses()
	for i := range reports {
		for _, g := range guests {
			c.warnCycle(&reports[i], g, local)
		}
	}
}

// warnCycle warns of a server that is a guest of the datastore which needs it.
func (c *checkedProvider) warnCycle(r *kmip.ServerReport, g guest, local []netip.Addr) {
	_, port, err := net.SplitHostPort(r.Address)
	if err != nil {
		return // told as the step that failed
	}
	for _, a := range r.Addresses {
		if how := g.serves("/proc", a, port, local); how != "" {
			c.addWarning("%s is a guest whose disk lies in the datastore that needs it: %s %s: after a reboot neither starts without the other; run this server elsewhere, or give the files a second provider (rekey --add)", r.Address, g, how)
		}
	}
}

// warnServer warns of certificates that end soon and operations that are not offered.
func (c *checkedProvider) warnServer(r *kmip.ServerReport, now time.Time) {
	for _, cert := range []struct {
		what string
		*kmip.CertificateReport
	}{{"CA certificate", r.CA}, {"client certificate", r.Client}, {"the certificate of " + r.Address, r.Server}} {
		if cert.CertificateReport != nil && now.Before(cert.NotAfter) && cert.NotAfter.Sub(now) < soon {
			c.addWarning("%s (%s) expires on %s: renew it", strings.TrimSpace(cert.what+" "+cert.File), cert.Subject, dateText(cert.NotAfter))
		}
	}
	if len(r.Operations) == 0 {
		return
	}
	for operation, need := range map[string]string{"Get": "no file opens", "Create": "init and rekey --new do not work"} {
		if !slices.Contains(r.Operations, operation) {
			c.addWarning("%s does not offer %s to this client: %s", r.Address, operation, need)
		}
	}
}

// warnKeys warns of keys in use here that ended or will end soon.
func (c *checkedProvider) warnKeys(ctx context.Context, p *kmip.Provider, known []knownKey, now time.Time) {
	if !c.OK {
		return
	}
	for _, k := range known {
		d, err := p.Describe(ctx, k.ID)
		switch {
		case err != nil:
			c.addWarning("key %q: %v", k.ID, err)
		case d.State != keys.Active && d.State != keys.StateUnknown:
			c.addWarning("key %q is %s at the KMS: rekey what is under it", k.ID, d.State)
		case !d.Deactivation.IsZero() && d.Deactivation.Sub(now) < soon:
			c.addWarning("key %q is deactivated on %s: rekey before that, for then it makes no new file", k.ID, dateText(d.Deactivation))
		}
	}
}

// addWarning adds a warning once: servers share certificates, and mounts keys.
func (c *checkedProvider) addWarning(format string, args ...any) {
	w := oneLine(fmt.Sprintf(format, args...))
	if !slices.Contains(c.Warnings, w) {
		c.Warnings = append(c.Warnings, w)
	}
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

// print shows c to people: a table of the servers, then what concerns all.
func (c *checkedProvider) print(to page, another bool) {
	if another {
		fmt.Fprintln(to.to)
	}
	state := to.green("can serve")
	if !c.OK {
		state = to.red("cannot serve")
	}
	to.row("provider", "%s: %s", c.Name, state)
	to.row("key", "%s", cmp.Or(printable(c.Key), "none tried: none of this provider is in use on this host (see --datastore)"))
	table := newTable(to, "server", "resolve", "connect", "TLS", "KMIP", "request", "key", "result")
	for _, s := range c.Servers {
		result := "ok"
		if !s.OK {
			result = stepText(s.Step, s.Error)
		}
		table.row(s.Address, timeText(s.ResolveMS), timeText(s.ConnectMS), timeText(s.TLSMS), cmp.Or(s.Version, "-"),
			timeText(s.RTTMS), timeText(s.ProbeMS), result)
	}
	table.end()
	for _, s := range c.Servers {
		s.printDetails(to)
	}
	for _, w := range c.Warnings {
		to.row("warning", "%s", to.red(w))
	}
}

func (s *checkedServer) printDetails(to page) {
	fmt.Fprintln(to.to)
	to.row("server", "%s", s.Address)
	if len(s.Addresses) > 0 {
		to.row("resolves to", "%s", strings.Trim(fmt.Sprint(s.Addresses), "[]"))
	}
	for _, c := range []struct {
		what string
		*certificate
	}{{"certificate", s.Server}, {"client", s.Client}, {"CA", s.CA}} {
		if c.certificate != nil {
			to.row(c.what, "%s", strings.TrimSpace(fmt.Sprintf("%s, until %s %s", printable(c.Subject), dateText(c.NotAfter), printable(c.File))))
		}
	}
	if s.Version != "" {
		to.row("KMIP", "%s of %s", s.Version, strings.Join(s.Versions, ", "))
	}
	if len(s.Operations) > 0 {
		to.row("operations", "%s", printable(strings.Join(s.Operations, ", ")))
	}
	if s.KeyState != "" {
		to.row("key", "%s", s.KeyState)
	}
}

// stepText is where a check ended and why; most errors begin with the step.
func stepText(step, why string) string {
	if strings.HasPrefix(why, step+":") {
		return why
	}
	return step + ": " + why
}

// timeText is a time that was measured, or a dash.
func timeText(ms float64) string {
	if ms == 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f ms", ms)
}

// dateText is a date as errors of keys/kmip show it; a dash for none.
func dateText(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.UTC().Format("2006-01-02 15:04 UTC")
}
