package doctor

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"vmcryptfs/fs/admin"
	"vmcryptfs/fs/daemon"
	"vmcryptfs/fs/wire"
	"vmcryptfs/keys"
	"vmcryptfs/keys/kmip"
	"vmcryptfs/words"
)

// warn collects the warnings.
func (c *Provider) warn(ctx context.Context, p *kmip.Provider, reports []kmip.ServerReport, known []KnownKey) {
	now := time.Now()
	for _, w := range daemon.CertificateWarnings(daemon.CertificatesOf(p, now)) {
		c.addWarning("%s", w)
	}
	for i := range reports {
		c.warnServer(&reports[i])
	}
	c.warnKeys(ctx, p, known, now)
	guests := map[int]guest{} // by pid: a datastore may have many keys
	for _, k := range known {
		for _, g := range guestsOf("/proc", k.dirs, k.daemon) {
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

// warnCycle warns of a server in a guest of the datastore in need of the server.
func (c *Provider) warnCycle(r *kmip.ServerReport, g guest, local []netip.Addr) {
	_, port, err := net.SplitHostPort(r.Address)
	if err != nil {
		return // reported already, as the failed step
	}
	for _, a := range r.Addresses {
		if how := g.serves("/proc", a, port, local); how != "" {
			c.addWarning("%s is a guest whose disk lies in the datastore that needs it: %s %s: after a reboot neither starts without the other; run this server elsewhere, or give the files a second provider (rekey --add)", r.Address, g, how)
		}
	}
}

// warnServer warns of missing operations of a server.
func (c *Provider) warnServer(r *kmip.ServerReport) {
	if len(r.Operations) == 0 {
		return
	}
	for operation, need := range map[string]string{"Get": "no file opens", "Create": "init and rekey --new do not work"} {
		if !slices.Contains(r.Operations, operation) {
			c.addWarning("%s does not offer %s to this client: %s", r.Address, operation, need)
		}
	}
}

// warnKeys warns of keys in use here that have ended or end soon.
func (c *Provider) warnKeys(ctx context.Context, p *kmip.Provider, known []KnownKey, now time.Time) {
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
		default:
			if w := daemon.KeyWarning(admin.Key{KeyName: wire.KeyName{Provider: p.Name(), Identifier: k.ID}, State: d.State.String(), Ends: d.Ends}, now); w != "" {
				c.addWarning("%s", w)
			}
		}
	}
}

// addWarning adds a warning once: servers share certificates, and mounts keys.
func (c *Provider) addWarning(format string, args ...any) {
	w := words.Line(fmt.Sprintf(format, args...))
	if !slices.Contains(c.Warnings, w) {
		c.Warnings = append(c.Warnings, w)
	}
}
