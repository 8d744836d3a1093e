package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"vmcryptfs/fs/admin"
	"vmcryptfs/keys"
	"vmcryptfs/words"
)

// page prints status for people: a word on the left, the value on the right. Red needs somebody's
// attention, green is well. Colours appear only on a terminal, and not under NO_COLOR
// (no-color.org).
type page struct {
	to    io.Writer
	color bool
}

func newPage(to *console) page {
	return page{to, obeys(to.file) && os.Getenv("NO_COLOR") == ""}
}

func (p page) row(label, format string, args ...any) {
	fmt.Fprintf(p.to, "%-12s %s\n", label, fmt.Sprintf(format, args...))
}

func (p page) paint(code, s string) string {
	if !p.color {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}

func (p page) red(s string) string   { return p.paint("1;31", s) }
func (p page) green(s string) string { return p.paint("32", s) }
func (p page) bold(s string) string  { return p.paint("1", s) }

// status prints one mount.
func (p page) status(s admin.Status) {
	p.row("datastore", "%s", p.bold(s.Datastore))
	p.row("backing", "%s", words.Printable(s.Backing))
	mode := ""
	if s.ReadOnly {
		mode = ", read-only"
	}
	if s.Copy {
		mode += ", a copy"
	}
	if s.Gone {
		p.row("unmounted", "%s%s, served on for %s by process %d", p.red("gone from "+words.Printable(s.Mountpoint)), mode, words.Age(time.Since(s.Since)), s.PID)
	} else {
		p.row("mounted", "%s%s, for %s by process %d", words.Printable(s.Mountpoint), mode, words.Age(time.Since(s.Since)), s.PID)
	}
	if s.FileSystem != nil { // a daemon of an earlier version does not tell
		p.row("file system", "%s", abilitiesLine(s.FileSystem))
	}
	p.row("transport", "%s", s.Transport)
	p.row("process", "%s", protectionLine(s.Protection))
	p.row("cipher", "XTS-AES-256, %s", s.Cipher)
	p.keys(s)
	p.rekey(s.Rekey)
	p.moves(s.Moves)
	p.files(s)
	p.row("open", "%d files, %d encrypted ones in use", s.IO.OpenFiles, s.IO.OpenEncrypted)
	p.row("read", "%s in %d operations", words.Size(int64(s.IO.ReadBytes)), s.IO.ReadOps)
	p.row("written", "%s in %d operations, %d syncs", words.Size(int64(s.IO.WriteBytes)), s.IO.WriteOps, s.IO.SyncOps)
	p.troubles(s)
}

// keys prints the state of the datastore's keys, the servers and the held keys.
func (p page) keys(s admin.Status) {
	state := p.green("unlocked, settings verified")
	switch {
	case s.Locked:
		state = p.red("locked")
	case !s.Verified:
		state = p.red("settings not verified: no file is created")
	}
	p.row("keys", "%s", state)
	p.row("current", "%s of provider %s", words.Printable(s.KEK.Identifier), words.Printable(s.KEK.Provider))
	for _, k := range s.Keys {
		text := fmt.Sprintf("%s of provider %s: %s, for %s", words.Printable(k.Identifier), words.Printable(k.Provider), k.State, words.Age(time.Duration(k.Age)*time.Second))
		if k.State != keys.Active.String() {
			text = p.red(text)
		}
		p.row("  held", "%s", text)
	}
	for _, provider := range s.Providers {
		p.row("provider", "%s", words.Printable(provider.Name))
		for _, change := range provider.Changes {
			p.row("  changed", "%s ago: %s", words.Age(time.Since(provider.Changed)), words.Printable(change))
		}
		for _, server := range provider.Servers {
			p.row("  server", "%s %s", server.Address, p.server(server))
			for _, k := range server.KeyErrors {
				p.row("", "%s", p.red(admin.KeyErrorText(k, time.Now())))
			}
		}
	}
	if s.Dev {
		p.row("", "%s", p.red("DEVELOPMENT KMS: its keys lie on this host, in clear. Protects nothing from who takes this disk."))
	}
}

// server is how a key server is.
func (p page) server(h keys.ServerHealth) string {
	text := words.Line(admin.ServerText(h, time.Now()))
	switch {
	case h.State == keys.ServerOK:
		return p.green("ok") + strings.TrimPrefix(text, "ok")
	case h.Checked.IsZero():
		return text
	default:
		return p.red(text)
	}
}

// files prints the counts by form, the problems, and the counts by class.
func (p page) files(s admin.Status) {
	f := s.Files
	text := fmt.Sprintf("%d encrypted, %d clear, %d empty", f.Encrypted, f.Clear, f.Empty)
	for _, wrong := range []struct {
		n    int64
		what string
	}{{f.Unencrypted, "unencrypted"}, {f.Damaged, "damaged"}, {f.Unsynced, "with unequal header slots"}} {
		if wrong.n > 0 {
			text += ", " + p.red(fmt.Sprintf("%d %s", wrong.n, wrong.what))
		}
	}
	if f.Leftovers > 0 {
		text += fmt.Sprintf(", %d leftovers of other hosts", f.Leftovers)
	}
	p.row("files", "%s%s", text, f.CountedText(time.Now()))
	classes := slices.SortedFunc(maps.Keys(f.ByClass), func(a, b string) int {
		return cmp.Or(cmp.Compare(f.ByClass[b], f.ByClass[a]), strings.Compare(a, b))
	})
	for i, class := range classes {
		classes[i] = fmt.Sprintf("%s %d", class, f.ByClass[class])
	}
	if len(classes) > 0 {
		p.row("  classes", "%s", strings.Join(classes, ", "))
	}
	p.placesOf(s)
}

// placesOf prints how many places adopt, and how many do not hold, if any do. The warnings name them.
func (p page) placesOf(s admin.Status) {
	var texts []string
	if s.Adopting > 0 {
		texts = append(texts, fmt.Sprintf("%d adopting cleartext", s.Adopting))
	}
	if n := len(s.Lacking); n > 0 {
		texts = append(texts, p.red(fmt.Sprintf("%d not holding", n)))
	}
	if len(texts) > 0 {
		p.row("  places", "%s", strings.Join(texts, ", "))
	}
}

// unserved prints a mount without a daemon, or with a silent one.
func (p page) unserved(u unserved) {
	p.row("mounted", "%s, %s", words.Printable(u.Mountpoint), p.red(u.State+": "+words.Line(u.Error)))
	p.row("backing", "%s", words.Printable(u.Backing))
}

// troubles prints refusals and failures since the mount, and the warnings.
func (p page) troubles(s admin.Status) {
	var counts []string
	for _, c := range []struct {
		n    uint64
		what string
	}{
		{s.IO.NoKey, "opens without a key"}, {s.IO.Denied, "opens of cleartext denied"},
		{s.IO.Damaged, "times damage met"}, {s.IO.NewerVersion, "opens of a newer version's files"}, {s.IO.BackingErrors, "errors of BACKING"},
	} {
		if c.n > 0 {
			counts = append(counts, fmt.Sprintf("%d %s", c.n, c.what))
		}
	}
	if len(counts) > 0 {
		p.row("trouble", "%s", p.red(strings.Join(counts, ", ")))
	}
	for _, w := range s.Warnings {
		p.row("warning", "%s", p.red(words.Line(w)))
	}
	if s.Log != "" {
		p.row("log", "%s", words.Printable(s.Log))
	}
}

// protectionLine describes p for people.
func protectionLine(p admin.Protection) string {
	flusher := "memory is not freed for it by I/O"
	if !p.IOFlusher {
		flusher = "no IO_FLUSHER (CAP_SYS_RESOURCE): do not swap to its disks"
	}
	return fmt.Sprintf("oom_score_adj %d, %s", p.OOMScore, flusher)
}
