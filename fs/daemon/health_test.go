package daemon

import (
	"cmp"
	"errors"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vmcryptfs/fs/admin"
	"vmcryptfs/fs/backing"
	"vmcryptfs/fs/wire"
	"vmcryptfs/keys"
)

func TestCheckServers(t *testing.T) {
	t.Parallel()
	now := time.Now()
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	for name, c := range map[string]struct {
		h    keys.ServerHealth
		ok   bool
		want string
	}{
		"ok":      {keys.ServerHealth{OK: true, State: keys.ServerOK, Version: "1.4", Since: ago(time.Hour), Checked: ago(20 * time.Second)}, true, "ok, KMIP 1.4, 20 s ago"},
		"down":    {keys.ServerHealth{State: keys.ServerDown, LastError: "refused", Since: ago(time.Hour), Checked: ago(time.Second)}, false, "down for 1 h 0 min, last asked 1 s ago: refused"},
		"never":   {keys.ServerHealth{State: keys.ServerUnknown}, true, "unknown: not asked yet"},
		"was ok":  {keys.ServerHealth{OK: true, State: keys.ServerUnknown, Since: ago(5 * time.Minute), Checked: ago(5 * time.Minute)}, false, "unknown for 5 min: it answered then"},
		"was not": {keys.ServerHealth{State: keys.ServerUnknown, LastError: "refused", Since: ago(5 * time.Minute), Checked: ago(5 * time.Minute)}, false, "unknown for 5 min: it was down then (refused)"},
	} {
		c.h.Address = "kms1:5696"
		got := checkServers(admin.Status{Providers: []admin.Provider{{Name: "corp", Servers: []keys.ServerHealth{c.h}}}}, now)
		if want := "kms1:5696 of corp " + c.want; got.OK != c.ok || !strings.HasPrefix(got.Message, want) {
			t.Errorf("%s: %+v, want %t, %q", name, got, c.ok, want)
		}
	}
	if got := checkServers(admin.Status{}, now); got.OK {
		t.Errorf("without any server: %+v", got)
	}
}

func TestJudgeKeys(t *testing.T) {
	t.Parallel()
	current, other := wire.KeyName{Provider: "corp", Identifier: "85"}, wire.KeyName{Provider: "corp", Identifier: "1"}
	held := func(name wire.KeyName, state keys.State) []admin.Key {
		return []admin.Key{{KeyName: name, State: state.String()}}
	}
	for name, c := range map[string]struct {
		s    admin.Status
		seal error
		ok   bool
		want string
	}{
		"held":        {admin.Status{Verified: true, Keys: held(current, keys.Active)}, nil, true, "key 85 held, active"},
		"state away":  {admin.Status{Verified: true, Keys: held(current, keys.StateUnknown)}, nil, true, "key 85 held"},
		"deactivated": {admin.Status{Verified: true, Keys: held(current, keys.Deactivated)}, nil, false, "deactivated"},
		"compromised": {admin.Status{Verified: true, Keys: held(current, keys.Compromised)}, nil, false, "compromised"},
		"lost":        {admin.Status{Verified: true, Keys: held(other, keys.Missing)}, nil, false, "provider corp has key 1 no more"},
		"locked":      {admin.Status{Verified: true, Locked: true}, nil, false, "locked"},
		"no seal":     {admin.Status{Keys: held(current, keys.Active)}, errors.New("forged"), false, "settings not verified: forged"},
		"not yet":     {admin.Status{}, nil, false, "not verified yet"},
		"fetchable": {admin.Status{Verified: true, Providers: []admin.Provider{{Name: "corp", Servers: []keys.ServerHealth{{OK: true}}}}},
			nil, true, "is not held, and provider corp answers: true"},
		"not fetchable": {admin.Status{Verified: true, Providers: []admin.Provider{{Name: "other", Servers: []keys.ServerHealth{{OK: true}}}, {Name: "corp", Servers: []keys.ServerHealth{{}}}}},
			nil, false, "answers: false"},
	} {
		c.s.KEK = current
		if got := judgeKeys(c.s, c.seal); got.OK != c.ok || !strings.Contains(got.Message, c.want) {
			t.Errorf("%s: %+v, want %t, %q", name, got, c.ok, c.want)
		}
	}
}

func TestJudgeSpace(t *testing.T) {
	t.Parallel()
	const block = 4096
	for name, c := range map[string]struct {
		st unix.Statfs_t
		ok bool
	}{
		// The recommended size of a read or write (FUSE, NFS) is not the unit of the counts.
		"large requests": {unix.Statfs_t{Blocks: 10 << 20, Bfree: 1 << 10, Bavail: 1 << 10, Frsize: block, Bsize: 1 << 30}, false},
		"half":           {unix.Statfs_t{Blocks: 1000, Bfree: 500, Bavail: 500, Files: 100, Ffree: 50}, true},
		"nearly full":    {unix.Statfs_t{Blocks: 1000, Bfree: 90, Bavail: 40, Files: 100, Ffree: 50}, false}, // the rest is root's
		"no inodes":      {unix.Statfs_t{Blocks: 1000, Bfree: 500, Bavail: 500, Files: 100, Ffree: 4}, false},
		"counts none":    {unix.Statfs_t{Blocks: 1000, Bfree: 500, Bavail: 500}, true},
		"nothing at all": {unix.Statfs_t{}, true},
		"huge":           {unix.Statfs_t{Blocks: 1 << 40, Bfree: 1 << 30, Bavail: 1 << 30}, true},
	} {
		c.st.Bsize = cmp.Or(c.st.Bsize, block)
		if ok, message := judgeSpace(&c.st); ok != c.ok {
			t.Errorf("%s: %t, %q; want %t", name, ok, message, c.ok)
		}
	}
}

func TestCheckCertificates(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		days []int
		ok   bool
	}{"none": {nil, true}, "long": {[]int{400, 30, leastDays}, true}, "soon": {[]int{400, leastDays - 1}, false}, "over": {[]int{-3}, false}} {
		var p admin.Provider
		for _, days := range c.days {
			p.Certificates = append(p.Certificates, admin.Certificate{Role: "client certificate", Days: days})
		}
		if got := checkCertificates(admin.Status{Providers: []admin.Provider{p}}); got.OK != c.ok {
			t.Errorf("%s: %+v, want %t", name, got, c.ok)
		}
	}
}

func TestCheckFiles(t *testing.T) {
	t.Parallel()
	s := admin.Status{Unencrypted: "deny", Files: admin.Files{Complete: true, CountedAt: time.Now()}}
	for name, c := range map[string]struct {
		census backing.Census
		policy string
		ok     bool
	}{
		"well": {backing.Census{Encrypted: 3}, "deny", true}, "damaged": {backing.Census{Damaged: 1}, "read", false},
		"cleartext": {backing.Census{Unencrypted: 1}, "deny", false}, "adopted": {backing.Census{Unencrypted: 1}, "read", true},
	} {
		s.Files.Census, s.Unencrypted = c.census, c.policy
		if got := checkFiles(s); got.OK != c.ok {
			t.Errorf("%s: %+v, want %t", name, got, c.ok)
		}
	}
}

// Counts of a walk that ended early are too low to be called well. Counts of a first walk under
// way are well.
func TestCheckFilesIncomplete(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		files admin.Files
		ok    bool
	}{
		"ended early": {admin.Files{CountedAt: time.Now()}, false}, "counting": {admin.Files{}, true},
		"complete": {admin.Files{CountedAt: time.Now(), Complete: true}, true},
	} {
		if got := checkFiles(admin.Status{Unencrypted: "deny", Files: c.files}); got.OK != c.ok {
			t.Errorf("%s: %+v, want %t", name, got, c.ok)
		}
	}
}

// While a call hangs nobody waits for longer than the limit, and no other is made.
func TestProbe(t *testing.T) {
	t.Parallel()
	var p probe[int]
	calls, wake := 0, make(chan struct{})
	hang := func() (int, error) { calls++; <-wake; return 7, nil }
	for range 2 {
		if _, err := p.ask(time.Millisecond, hang); !errors.Is(err, ErrSilent) {
			t.Errorf("a call that hangs: %v", err)
		}
	}
	close(wake)
	if got, err := p.ask(time.Minute, func() (int, error) { return 7, nil }); got != 7 || err != nil || calls != 1 {
		t.Errorf("afterwards %d, %v; %d calls that hung, want 1", got, err, calls)
	}
}

// TestKeyErrorsInCheck: the check names the missing key of a server that is otherwise well.
func TestKeyErrorsInCheck(t *testing.T) {
	t.Parallel()
	now := time.Now()
	h := keys.ServerHealth{Address: "kms2:5696", OK: true, State: keys.ServerOK, Checked: now, Version: "1.4",
		KeyErrors: []keys.KeyError{{Key: "85", Error: "Get: wrong key: its check value is not the known one", Since: now.Add(-5 * time.Minute)}}}
	s := admin.Status{Providers: []admin.Provider{{Name: "corp", Servers: []keys.ServerHealth{h}}}}
	const want = "did not give key 85 5 min ago: Get: wrong key"
	if got := checkServers(s, now); !got.OK || !strings.Contains(got.Message, "kms2:5696 "+want) {
		t.Errorf("check %+v, want %q", got, want)
	}
}
