package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"vmcryptfs/fs/admin"
	"vmcryptfs/keys"
)

// The exit code is that of the first failed check.
func TestUnwellCodes(t *testing.T) {
	t.Parallel()
	bad := func(names ...string) error {
		var list []admin.Check
		for _, name := range names {
			list = append(list, admin.Check{Name: name})
		}
		return viewHealth(admin.NewHealth(admin.Mount{}, list...), nil).err
	}
	for name, c := range map[string]struct {
		err  error
		want int
	}{
		"space": {bad(admin.CheckSpace), exitFailed}, "keys": {bad(admin.CheckKeys, admin.CheckFiles), exitKeys},
		"servers": {bad(admin.CheckServers), exitKeys}, "certificates": {bad(admin.CheckCertificates, admin.CheckSpace), exitKeys},
		"files": {bad(admin.CheckFiles), exitDamage}, "mount": {bad(admin.CheckMount, admin.CheckKeys), exitFailed},
		"dead":   {checks{}.unserved(unserved{State: admin.StateDead}).err, exitNotMounted},
		"silent": {checks{}.unserved(unserved{State: admin.StateSilent}).err, exitFailed},
		"none":   {checks{}.none(nil, false), exitNotMounted},
	} {
		if got := exitCode(c.err); got != c.want {
			t.Errorf("%s: exit code %d of %v, want %d", name, got, c.err, c.want)
		}
	}
}

// TestKeyErrorsInStatus: status names the missing key of a server that is otherwise well.
func TestKeyErrorsInStatus(t *testing.T) {
	t.Parallel()
	now := time.Now()
	h := keys.ServerHealth{Address: "kms2:5696", OK: true, State: keys.ServerOK, Checked: now, Version: "1.4",
		KeyErrors: []keys.KeyError{{Key: "85", Error: "Get: wrong key: its check value is not the known one", Since: now.Add(-5 * time.Minute)}}}
	s := admin.Status{Providers: []admin.Provider{{Name: "corp", Servers: []keys.ServerHealth{h}}}}
	const want = "did not give key 85 5 min ago: Get: wrong key"
	var out bytes.Buffer
	page{to: &out}.keys(s)
	if !strings.Contains(out.String(), want) {
		t.Errorf("status:\n%s\nwant %q", out.String(), want)
	}
}
