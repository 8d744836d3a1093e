package main

import (
	"strings"
	"testing"
	"time"

	"vmcryptfs/fs/rekey"
	"vmcryptfs/fs/wire"
)

// clock is a time under the control of a test.
type clock struct{ now time.Time }

func (c *clock) after(d time.Duration) { c.now = c.now.Add(d) }

// TestProgress: a terminal has one line drawn again, a pipe a line now and then. Both show the
// total, the share done and the time left.
func TestProgress(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		redraw bool
		want   string
	}{
		{"terminal", true, "\rexport: 5 % of 100.0 MiB\x1b[K\rexport: 50 % of 100.0 MiB, 31 s left\x1b[K\r\x1b[K"},
		{"pipe", false, "export: 50 % of 100.0 MiB, 31 s left\n"},
	} {
		var out strings.Builder
		clock := &clock{time.Unix(0, 0)}
		l := newProgress(&out, c.redraw, "export", 100<<20, func() time.Time { return clock.now })
		l.at(1 << 20)
		clock.after(time.Second)
		l.at(5 << 20)
		l.at(6 << 20)
		clock.after(30 * time.Second)
		l.at(50 << 20)
		l.at(51 << 20)
		l.end()
		if got := out.String(); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

// TestRekeyTold: a new key is shown at once; the share done is shown once the total is known.
func TestRekeyTold(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	clock := &clock{time.Unix(0, 0)}
	r := &rekeyRun{paths: []string{"/vm/it's here"}, line: newProgress(&out, false, "rekey", 0, func() time.Time { return clock.now })}
	r.request.New = true
	told := rekey.Event{KeyName: wire.KeyName{Provider: "corp", Identifier: "k 2"}, Created: true, Pass: 1, Total: 400}
	r.told(told)
	clock.after(lineEvery)
	told.Done, told.Rekeyed, told.Failed = 100, 90, 1
	r.told(told)
	clock.after(lineEvery)
	told.Done, told.Pass = 500, 2 // files came meanwhile
	r.told(told)
	clock.after(lineEvery)
	told.Total = 0
	r.told(told)
	want := `rekey: key k 2 was made at provider corp; should this end early, go on with: vmcryptfs rekey '/vm/it'\''s here' --to 'k 2'
rekey: 25 % of 400 files, 1 min left; 90 rekeyed, 1 failed
rekey: pass 2, 100 % of 400 files; 90 rekeyed, 1 failed
rekey: pass 2, 500 files; 90 rekeyed, 1 failed
`
	if got := out.String(); got != want {
		t.Errorf("told:\n%s\nwant:\n%s", got, want)
	}
}

// TestGoOn: the command for going on makes no other key.
func TestGoOn(t *testing.T) {
	t.Parallel()
	key := wire.KeyName{Provider: "corp", Identifier: "k2"}
	type request struct {
		to        string
		fresh     bool
		add, drop string
	}
	for _, c := range []struct {
		asked   request
		key     wire.KeyName
		current bool
		want    string
	}{
		{request{fresh: true}, key, true, "vmcryptfs rekey m"},
		{request{fresh: true}, key, false, "vmcryptfs rekey m --to k2"},
		{request{fresh: true}, wire.KeyName{}, false, "vmcryptfs rekey m --new"},
		{request{to: "k2"}, key, false, "vmcryptfs rekey m --to k2"},
		{request{to: "k2"}, key, true, "vmcryptfs rekey m"},
		{request{}, key, false, "vmcryptfs rekey m"},
		{request{add: "spare", drop: "corp"}, key, true, "vmcryptfs rekey m --add spare --drop corp"},
		{request{fresh: true, add: "spare"}, key, false, "vmcryptfs rekey m --to k2 --add spare"},
		{request{drop: "corp"}, wire.KeyName{}, false, "vmcryptfs rekey m --drop corp"},
	} {
		r := &rekeyRun{paths: []string{"m"}}
		r.request.To, r.request.New, r.request.Add, r.request.Drop = c.asked.to, c.asked.fresh, c.asked.add, c.asked.drop
		if got := r.goOn(c.key, c.current); got != c.want {
			t.Errorf("%+v with key %+v, current %t: %s, want %s", c.asked, c.key, c.current, got, c.want)
		}
	}
}
