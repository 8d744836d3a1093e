package main

import (
	"cmp"
	"fmt"
	"strings"

	"vmcryptfs/cmd/vmcryptfs/doctor"
	"vmcryptfs/words"
)

// checked shows c to people: a table of the servers, then the warnings for all.
func (p page) checked(c *doctor.Provider, another bool) {
	if another {
		fmt.Fprintln(p.to)
	}
	state := p.green("can serve")
	if !c.OK {
		state = p.red("cannot serve")
	}
	p.row("provider", "%s: %s", c.Name, state)
	p.row("key", "%s", cmp.Or(words.Printable(c.Key), "none tried: none of this provider is in use on this host (see --datastore)"))
	table := newTable(p, "server", "resolve", "connect", "TLS", "KMIP", "request", "key", "result")
	for _, s := range c.Servers {
		result := "ok"
		if !s.OK {
			result = s.Failure()
		}
		table.row(s.Address, timeText(s.ResolveMS), timeText(s.ConnectMS), timeText(s.TLSMS), cmp.Or(s.Version, "-"),
			timeText(s.RTTMS), timeText(s.ProbeMS), result)
	}
	table.end()
	for _, s := range c.Servers {
		p.checkedServer(&s)
	}
	for _, w := range c.Warnings {
		p.row("warning", "%s", p.red(w))
	}
}

func (p page) checkedServer(s *doctor.Server) {
	fmt.Fprintln(p.to)
	p.row("server", "%s", s.Address)
	if len(s.Addresses) > 0 {
		p.row("resolves to", "%s", strings.Trim(fmt.Sprint(s.Addresses), "[]"))
	}
	for _, c := range []struct {
		what string
		is   *doctor.Certificate
	}{{"certificate", s.Server}, {"client", s.Client}, {"CA", s.CA}} {
		if c.is != nil {
			p.row(c.what, "%s", strings.TrimSpace(fmt.Sprintf("%s, until %s %s", words.Printable(c.is.Subject), words.Date(c.is.NotAfter), words.Printable(c.is.File))))
		}
	}
	if s.Version != "" {
		p.row("KMIP", "%s of %s", s.Version, strings.Join(s.Versions, ", "))
	}
	if len(s.Operations) > 0 {
		p.row("operations", "%s", words.Printable(strings.Join(s.Operations, ", ")))
	}
	if s.KeyState != "" {
		p.row("key", "%s", s.KeyState)
	}
}

// timeText is a measured time in milliseconds, or a dash.
func timeText(ms float64) string {
	if ms == 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f ms", ms)
}
