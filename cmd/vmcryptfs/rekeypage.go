package main

import (
	"fmt"
	"time"

	"vmcryptfs/fs/rekey"
	"vmcryptfs/words"
)

// rekey prints the rekey under way.
func (p page) rekey(r *rekey.Status) {
	if r == nil {
		return
	}
	text := fmt.Sprintf("%d files", r.Done)
	if r.Total > 0 {
		text = fmt.Sprintf("%d of %d files", r.Done, r.Total)
	}
	if r.Pass > 1 {
		text += fmt.Sprintf(" in pass %d", r.Pass)
	}
	text += ", for " + words.Age(time.Since(r.Since))
	if r.Target != nil {
		text += fmt.Sprintf(", to key %s of provider %s", words.Printable(r.Target.Identifier), words.Printable(r.Target.Provider))
	}
	p.row("rekey", "%s; asked for by uid %d, pid %d", text, r.UID, r.PID)
}

// printRekey prints a summary for people; drop is the provider whose lockers went.
func (p *program) printRekey(sum rekey.Summary, drop string) {
	to := page{to: p.stdout}
	if sum.Identifier != "" {
		note := ""
		if sum.Created {
			note = ", new"
		}
		switch {
		case sum.Current && sum.Place != "":
			note += ", now the key of place " + words.Printable(sum.Place)
		case sum.Current:
			note += ", now the datastore's current key"
		}
		to.row("key", "%s of provider %s%s", words.Printable(sum.Identifier), sum.Provider, note)
	}
	to.row("rekeyed", "%d files; %d needed nothing", sum.Rekeyed, sum.Already)
	if sum.Clear > 0 {
		to.row("clear", "%d files, which have no key", sum.Clear)
	}
	if drop != "" && sum.Rekeyed == 0 && sum.Failed == 0 {
		to.row("dropped", "nothing: no file had a locker of provider %s", words.Printable(drop))
	}
	for _, f := range sum.Failures {
		to.row("remains", "%s: %s", words.Printable(f.Path), words.Line(f.Err.Error()))
	}
	if n := sum.Failed - int64(len(sum.Failures)); n > 0 {
		to.row("remains", "%d more", n)
	}
}
