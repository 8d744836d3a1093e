package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"vmcryptfs/fs/admin"
	"vmcryptfs/fs/mounts"
	"vmcryptfs/keys"
	"vmcryptfs/layout"
	"vmcryptfs/words"
)

// checkTime bounds how long a daemon may take for its health.
const checkTime = 10 * time.Second

// checks are views of the health, as judged by the daemon (fs/daemon/health.go).
type checks struct{}

func (checks) served(ctx context.Context, client *admin.Client, m admin.Mount) view {
	ctx, cancel := context.WithTimeout(ctx, checkTime)
	defer cancel()
	h, err := client.Health(ctx)
	if err != nil {
		h = admin.NewHealth(m, admin.Check{Name: admin.CheckMount, Message: err.Error()})
	}
	return viewHealth(h, err)
}

func (checks) unserved(u unserved) view {
	m := admin.Mount{Mountpoint: u.Mountpoint, Backing: u.Backing}
	return viewHealth(admin.NewHealth(m, admin.Check{Name: admin.CheckMount, Message: u.State + ": " + u.Error}), u.err())
}

// none is an error for a probe: a probe is set up where a mount should exist.
func (checks) none(*program, bool) error { return mounts.ErrNotMounted }

// viewHealth shows h. cause is the error in place of an answer, or nil.
func viewHealth(h admin.Health, cause error) view {
	v := view{h.Mountpoint, h, func(to page) { to.health(h) }, nil}
	if !h.OK {
		v.err = &unwell{h, cause}
	}
	return v
}

// unwell is the error of a mount with a failed check. The exit code is that of the first failed
// check.
type unwell struct {
	admin.Health
	cause error
}

// Error names the failed checks.
func (u *unwell) Error() string {
	var failed []string
	for _, c := range u.Checks {
		if !c.OK {
			failed = append(failed, c.Name+": "+c.Message)
		}
	}
	return u.Mountpoint + " is not well: " + strings.Join(failed, "; ")
}

// Unwrap gives an error of the first failed check's kind, or nil.
func (u *unwell) Unwrap() error {
	if u.cause != nil {
		return u.cause
	}
	for _, c := range u.Checks {
		if c.OK {
			continue
		}
		switch c.Name {
		case admin.CheckKeys, admin.CheckServers, admin.CheckCertificates:
			return keys.ErrNoKey
		case admin.CheckFiles:
			return layout.ErrDamaged
		}
		return nil
	}
	return nil
}

// health prints a line for each check.
func (p page) health(h admin.Health) {
	state := p.green("well")
	if !h.OK {
		state = p.red("NOT WELL")
	}
	fmt.Fprintf(p.to, "%s: %s\n", words.Printable(h.Mountpoint), state)
	for _, c := range h.Checks {
		word := p.green("ok")
		if !c.OK {
			word = p.red("FAILED")
		}
		fmt.Fprintf(p.to, "  %-12s %s: %s\n", c.Name, word, words.Line(c.Message))
	}
}
