package daemon

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"vmcryptfs/fs/admin"
	"vmcryptfs/keys"
	"vmcryptfs/keys/kmip"
	"vmcryptfs/words"
)

const (
	day = 24 * time.Hour
	// soon is how long before the end of a certificate or key a warning begins.
	soon = 30 * day
	// expiryEvery is the pause between two checks for near ends.
	expiryEvery = time.Hour
)

// CertificatesOf gives the certificates on which the sessions of p depend, the first to end first.
// Days counts from now.
func CertificatesOf(p *kmip.Provider, now time.Time) []admin.Certificate {
	list := []admin.Certificate{} // in JSON: [], not null
	for _, c := range p.Certificates() {
		list = append(list, admin.Certificate{
			Role: c.Role, Subject: c.Subject, Issuer: c.Issuer, File: c.File, Servers: c.Servers,
			NotAfter: c.NotAfter, Days: daysUntil(c.NotAfter, now),
		})
	}
	return list
}

// daysUntil is how many whole days are left until end; negative after end.
func daysUntil(end, now time.Time) int {
	left := end.Sub(now)
	if left < 0 {
		left -= day - 1
	}
	return int(left / day)
}

// CertificateWarnings gives a warning for each expired certificate of list and for each one with
// an end within 30 days.
func CertificateWarnings(list []admin.Certificate) (warnings []string) {
	for _, c := range list {
		end := fmt.Sprintf("ends in %d days, on %s", c.Days, words.Date(c.NotAfter))
		switch {
		case c.Days > int(soon/day):
			continue
		case c.Days < 0:
			end = "expired on " + words.Date(c.NotAfter)
		}
		where := cmp.Or(c.File, "of "+strings.Join(c.Servers, ", "))
		warnings = append(warnings, fmt.Sprintf("the %s %s (%s) %s: renew it; without it no key is to be had", c.Role, where, c.Subject, end))
	}
	return warnings
}

// KeyWarning gives a warning for a key whose deactivation date is in the past or in the next 30
// days: such a key wraps no new file, or soon will not. KeyWarning is empty for every other key,
// and for a key whose state at the KMS already shows the end.
func KeyWarning(k admin.Key, now time.Time) string {
	days := daysUntil(k.Ends, now)
	if k.Ends.IsZero() || days > int(soon/day) {
		return ""
	}
	if days < 0 {
		if k.State != keys.Active.String() {
			return "" // the key's state shows the end
		}
		return fmt.Sprintf("key %s of provider %s ended on %s: vmcryptfs rekey now, for it makes no new file",
			k.Identifier, k.Provider, words.Date(k.Ends))
	}
	return fmt.Sprintf("key %s of provider %s ends in %d days, on %s: vmcryptfs rekey before that, for then it makes no new file",
		k.Identifier, k.Provider, days, words.Date(k.Ends))
}

// expiryWarnings gives the warnings about certificates and keys of the mount.
func expiryWarnings(s admin.Status, now time.Time) (warnings []string) {
	for _, p := range s.Providers {
		warnings = append(warnings, CertificateWarnings(p.Certificates)...)
	}
	for _, k := range s.Keys {
		if w := KeyWarning(k, now); w != "" {
			warnings = append(warnings, w)
		}
	}
	return warnings
}

// An expiryLog logs each warning about an end at most once a day.
type expiryLog struct {
	log  *slog.Logger
	told map[string]time.Time // time of the last warning, by certificate or key
}

// tell logs the warnings not logged for a day. A warning is known by certificate or key, since the
// text of the warning changes daily.
func (e *expiryLog) tell(s admin.Status, now time.Time) {
	for _, p := range s.Providers {
		for _, c := range p.Certificates {
			for _, w := range CertificateWarnings([]admin.Certificate{c}) {
				e.once(fmt.Sprint(p.Name, c.Role, c.File, c.Subject, c.NotAfter), w, now)
			}
		}
	}
	for _, k := range s.Keys {
		if w := KeyWarning(k, now); w != "" {
			e.once(fmt.Sprint(k.KeyName, k.Ends), w, now)
		}
	}
}

func (e *expiryLog) once(what, warning string, now time.Time) {
	if last, ok := e.told[what]; ok && now.Sub(last) < day {
		return
	}
	if e.told == nil {
		e.told = map[string]time.Time{}
	}
	e.told[what] = now
	e.log.Warn("ends soon, or has ended: " + warning)
}

// keepTellingExpiry logs near ends, until ctx ends.
func (d *daemon) keepTellingExpiry(ctx context.Context) {
	tick := time.NewTicker(expiryEvery)
	defer tick.Stop()
	told := expiryLog{log: d.log}
	for {
		told.tell(admin.Status{Providers: d.providers(), Keys: d.heldKeys()}, time.Now())
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
