package main

import (
	"cmp"
	"fmt"
	"strings"

	"vmcryptfs/words"
)

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
	to.row("key", "%s", cmp.Or(words.Printable(c.Key), "none tried: none of this provider is in use on this host (see --datastore)"))
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
			to.row(c.what, "%s", strings.TrimSpace(fmt.Sprintf("%s, until %s %s", words.Printable(c.Subject), words.Date(c.NotAfter), words.Printable(c.File))))
		}
	}
	if s.Version != "" {
		to.row("KMIP", "%s of %s", s.Version, strings.Join(s.Versions, ", "))
	}
	if len(s.Operations) > 0 {
		to.row("operations", "%s", words.Printable(strings.Join(s.Operations, ", ")))
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
