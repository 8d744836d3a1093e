package daemon

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"

	"vmcryptfs/fs/admin"
	"vmcryptfs/fs/wire"
)

var expiryNow = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func ending(role string, in time.Duration) admin.Certificate {
	end := expiryNow.Add(in)
	return admin.Certificate{Role: role, Subject: "CN=x", File: "/x.pem", NotAfter: end, Days: daysUntil(end, expiryNow)}
}

// TestExpiryWarnings: an end in 30 days or less, or in the past, causes a warning.
func TestExpiryWarnings(t *testing.T) {
	t.Parallel()
	key := func(in time.Duration) admin.Key {
		return admin.Key{KeyName: wire.KeyName{Provider: "corp", Identifier: "7"}, Ends: expiryNow.Add(in)}
	}
	active := func(in time.Duration) admin.Key {
		k := key(in)
		k.State = "active"
		return k
	}
	for _, c := range []struct {
		name string
		cert admin.Certificate
		key  admin.Key
		want []string // parts of the warnings, in order
	}{
		{"all well", ending("client certificate", 31*day), key(31 * day), nil},
		{"no end", ending("client certificate", 400*day), admin.Key{}, nil},
		{"client", ending("client certificate", 30*day+time.Hour), key(31 * day), []string{"client certificate /x.pem (CN=x) ends in 30 days, on 2026-03-31 13:00 UTC: renew it"}},
		{"CA and key", ending("CA certificate", time.Hour), key(3 * day), []string{"CA certificate /x.pem (CN=x) ends in 0 days", "key 7 of provider corp ends in 3 days, on 2026-03-04 12:00 UTC"}},
		{"key ended", admin.Certificate{NotAfter: expiryNow.Add(400 * day), Days: 400}, active(-day), []string{"key 7 of provider corp ended on 2026-02-28 12:00 UTC"}},
		{"ended", ending("client certificate", -time.Second), key(-day), []string{"client certificate /x.pem (CN=x) expired on 2026-03-01 11:59 UTC"}},
	} {
		s := admin.Status{Providers: []admin.Provider{{Name: "corp", Certificates: []admin.Certificate{c.cert}}}, Keys: []admin.Key{c.key}}
		got := expiryWarnings(s, expiryNow)
		if len(got) != len(c.want) {
			t.Errorf("%s: warnings %q, want %q", c.name, got, c.want)
			continue
		}
		for i, want := range c.want {
			if !strings.Contains(got[i], want) {
				t.Errorf("%s: warning %q, want %q", c.name, got[i], want)
			}
		}
	}
}

// TestExpiryLog: a near end is logged once a day, and another end at once.
func TestExpiryLog(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	told := expiryLog{log: slog.New(slog.NewTextHandler(&out, nil))}
	status := func(list ...admin.Certificate) admin.Status {
		return admin.Status{Providers: []admin.Provider{{Name: "corp", Certificates: list}}}
	}
	at := func(after time.Duration, s admin.Status, want int) {
		t.Helper()
		out.Reset()
		told.tell(s, expiryNow.Add(after))
		if n := strings.Count(out.String(), "ends soon"); n != want {
			t.Errorf("after %v: %d lines, want %d:\n%s", after, n, want, out.String())
		}
	}
	one, two := ending("client certificate", 10*day), ending("CA certificate", 9*day)
	at(0, status(one), 1)
	at(time.Hour, status(one), 0)
	at(2*time.Hour, status(one, two), 1)
	at(day, status(one, two), 1)
	at(day+2*time.Hour, status(one, two), 1)
	at(3*day, status(one, two), 2)
	renewed := ending("client certificate", 400*day)
	at(5*day, status(renewed, two), 1)
}

func TestDaysUntil(t *testing.T) {
	t.Parallel()
	for in, want := range map[time.Duration]int{0: 0, time.Second: 0, day: 1, 2*day - 1: 1, -1: -1, -day: -1, -day - 1: -2} {
		if got := daysUntil(expiryNow.Add(in), expiryNow); got != want {
			t.Errorf("in %v: %d days, want %d", in, got, want)
		}
	}
}
