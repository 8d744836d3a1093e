package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"vmcryptfs/advice"
	"vmcryptfs/fs/daemon"
	"vmcryptfs/fs/datastore"
	"vmcryptfs/fs/scan"
	"vmcryptfs/layout"
	"vmcryptfs/words"
)

// errScanned: a scan has found something.
var errScanned = errors.New("something lies there that should not")

// scan tells what lies in a datastore that should not.
func (p *program) scan(ctx context.Context, args []string) error {
	var k keyFlags
	f := p.flags("scan")
	asJSON := f.Bool("json", false, "print JSON")
	k.add(f)
	args, err := p.parse(f, args, "BACKING [--json]", 1, 1)
	if err != nil {
		return err
	}
	root, err := datastoreAt(args[0])
	if err != nil {
		return err
	}
	ctx, stop := interruptible(ctx)
	defer stop()
	report, err := scanHere(ctx, root, k)
	err = interrupted(ctx, err)
	if report == nil {
		return err
	}
	// What was found before an interruption is told, too.
	if *asJSON {
		return cmp.Or(err, p.printJSON(report), scanned(report))
	}
	page{to: p.stdout}.scanned(report)
	return cmp.Or(err, scanned(report))
}

// scanHere scans the datastore at root in this process, with a mount or beside one.
func scanHere(ctx context.Context, root string, k keyFlags) (report *scan.Report, err error) {
	store, err := datastore.Open(root, false)
	if err != nil {
		return nil, err
	}
	defer store.Close()
	c := scan.Config{Store: store, Again: func() (*layout.Settings, error) { return settingsOf(root) }}
	if c.Host, err = datastore.HostID(); err != nil {
		return nil, fmt.Errorf("scan %s: name of this host: %w", root, err)
	}
	err = withKeys(ctx, k, func(source *daemon.KeySource) (err error) {
		c.Keys = source.Cache
		report, err = scan.Run(ctx, c)
		return err
	})
	return report, err
}

// settingsOf reads the settings of the datastore at root, which nobody has proven.
func settingsOf(root string) (*layout.Settings, error) {
	store, err := datastore.Open(root, false)
	if err != nil {
		return nil, err
	}
	defer store.Close()
	return store.Settings(), nil
}

// scanned is an error if something was found.
func scanned(r *scan.Report) error {
	n := r.Total()
	if n == 0 {
		return nil
	}
	return advice.New(fmt.Errorf("scan %s: %w: %d in all, %d in clear", r.Backing, errScanned, n, r.Clear),
		"what each is stands above; docs/operations.md tells what to do")
}

// scanned shows a report.
func (p page) scanned(r *scan.Report) {
	p.row("datastore", "%s on %s, %d files", words.Printable(r.Backing), words.Printable(r.FileSystem), r.Files)
	proven := "proven"
	if !r.Verified {
		proven = "unproven"
	}
	p.row("settings", "%s", proven)
	for i := range r.Findings {
		p.finding(&r.Findings[i])
	}
	if n := r.Total() - int64(len(r.Findings)); n > 0 {
		p.row("more", "%d, not listed", n)
	}
	p.row("found", "%s", kindsText(r))
	if !r.Complete {
		p.row("incomplete", "not all was read, or not every question was answered")
	}
	for _, note := range r.Notes {
		p.row("note", "%s", words.Line(note))
	}
	for _, text := range scan.Remains(r.FileSystem) {
		fmt.Fprintf(p.to, "\n%s\n", strings.Join(wrap(words.Printable(text), columns), "\n"))
	}
}

// finding shows one finding. What the reason leaves open is added: the length, and the name's rule.
func (p page) finding(f *scan.Finding) {
	var facts []string
	if f.Class != "" {
		facts = append(facts, words.Size(f.Bytes))
	}
	if f.Clear {
		facts = append(facts, "in clear")
	}
	switch {
	case f.Policy != "":
		facts = append(facts, fmt.Sprintf("policy %s of place %s", words.Printable(f.Policy), words.Printable(f.Place)))
	case f.Rule != nil && *f.Rule > 0:
		facts = append(facts, fmt.Sprintf("rule %d", *f.Rule))
	case f.Rule != nil:
		facts = append(facts, "rule of the settings")
	}
	at := words.Printable(f.Path)
	if len(facts) > 0 {
		at += " (" + strings.Join(facts, ", ") + ")"
	}
	p.row(f.Kind, "%s: %s", at, words.Line(f.Why))
}

// kindsText says how many findings of which kind there are.
func kindsText(r *scan.Report) string {
	if r.Total() == 0 {
		return "nothing"
	}
	var texts []string
	for _, kind := range slices.Sorted(maps.Keys(r.Kinds)) {
		texts = append(texts, fmt.Sprintf("%d %s", r.Kinds[kind], kind))
	}
	if r.Clear > 0 {
		texts = append(texts, fmt.Sprintf("%d of all in clear, %s", r.Clear, words.Size(r.Bytes)))
	}
	return strings.Join(texts, ", ")
}
