package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"vmcryptfs/advice"
	"vmcryptfs/fs/datastore"
	"vmcryptfs/fs/moves"
	"vmcryptfs/fs/policy"
	"vmcryptfs/fs/wire"
	"vmcryptfs/words"
)

// checkResult is what policy check prints as JSON.
type checkResult struct {
	Places []policy.Place `json:"places"`
	Differ []moves.Differ `json:"differ"`
	moves.Checked
}

// differsError says that files are not what their places want. Its exit code is that of damage.
type differsError struct{ files, places int64 }

func (e *differsError) Error() string {
	var parts []string
	if e.files > 0 {
		parts = append(parts, fmt.Sprintf("%d files are not what their places want", e.files))
	}
	if e.places > 0 {
		parts = append(parts, fmt.Sprintf("%d places do not hold", e.places))
	}
	return strings.Join(parts, ", and ")
}

// policyCheck lists the files that differ from what their places want.
func (p *program) policyCheck(ctx context.Context, args []string) error {
	var k keyFlags
	f := p.flags("policy check")
	asJSON := f.Bool("json", false, "print JSON")
	k.add(f)
	args, err := p.parse(f, args, "[DIR…] [--json]", 0, -1)
	if err != nil {
		return err
	}
	if len(args) == 0 {
		args = []string{"."}
	}
	root, rel, err := pathsInDatastore("policy check", args)
	if err != nil {
		return err
	}
	ctx, stop := interruptible(ctx)
	defer stop()
	result, err := checkPolicies(ctx, root, k, moves.Check{Paths: rel})
	if err != nil {
		return requestFailure(interrupted(ctx, err))
	}
	if result.Places, err = placesOf(ctx, root, k, rel); err != nil {
		return err
	}
	if *asJSON {
		err = p.printJSON(result)
	} else {
		page{to: p.stdout}.differ(result)
	}
	return errors.Join(err, result.failure(args))
}

// checkPolicies has the datastore's daemon look for what differs or, without a mount, looks in this
// process.
func checkPolicies(ctx context.Context, root string, k keyFlags, r moves.Check) (result checkResult, err error) {
	result.Differ = []moves.Differ{}
	each := func(d moves.Differ) error { result.Differ = append(result.Differ, d); return nil }
	client, err := daemonOf(ctx, root)
	if err != nil {
		return result, err
	}
	if client != nil {
		result.Checked, err = client.CheckPolicies(ctx, r, each)
		return result, err
	}
	err = movesHere(ctx, root, k, func(m *moves.Manager, _ *datastore.Store, _ *slog.Logger) (err error) {
		result.Checked, err = m.Check(ctx, r, each)
		result.Rest = result.AsTold()
		return err
	})
	return result, err
}

// placesOf are the places at, above and below the paths.
func placesOf(ctx context.Context, root string, k keyFlags, paths []string) ([]policy.Place, error) {
	list, err := listPolicies(ctx, root, k)
	related := []policy.Place{}
	for _, p := range list.Places {
		for _, at := range paths {
			if isWithin(p.Path, at) || isWithin(at, p.Path) {
				related = append(related, p)
				break
			}
		}
	}
	return related, err
}

// isWithin reports whether the path at is the path top or below it.
func isWithin(at, top string) bool {
	return top == "." || at == top || strings.HasPrefix(at, top+"/")
}

// failure is nil where nothing differs, and everything could be looked at.
func (r *checkResult) failure(paths []string) error {
	var lacking int64
	for i := range r.Places {
		if !r.Places[i].Holds {
			lacking++
		}
	}
	switch {
	case r.Failed > 0:
		return (&wire.Rest{Failed: r.Failed, Failures: r.Failures}).Err()
	case r.Files+lacking == 0:
		return nil
	}
	err := error(&differsError{r.Files, lacking})
	return advice.New(err, words.Command(append([]string{"vmcryptfs", "policy", "apply"}, paths...))+" moves the files; vmcryptfs policy list tells of the places")
}

// differ shows what a check has found.
func (p page) differ(r checkResult) {
	for i := range r.Places {
		if !r.Places[i].Holds || r.Places[i].Adopt {
			p.row("place", "%s", words.Printable(r.Places[i].Path+": "+r.Places[i].Policy+"; holds: "+holdsText(&r.Places[i])))
		}
	}
	if len(r.Differ) > 0 {
		t := newTable(p, "FILE", "IS", "WANTED", "SIZE", "TAKES")
		for i := range r.Differ {
			d := &r.Differ[i]
			t.row(d.Path, isText(d.Form, d.KEK), isText(d.Wanted, d.WantedKEK), words.Size(d.Bytes),
				fmt.Sprintf("%s more for about %s", words.Size(d.Extra), words.Age(time.Duration(d.Seconds)*time.Second)))
		}
		t.end()
	}
	p.row("differ", "%d files, %s", r.Files, words.Size(r.Bytes))
	p.remains(&r.Rest)
}

func isText(form string, key *wire.KeyName) string {
	if key == nil {
		return form
	}
	return form + ", key " + key.Identifier
}

// remains lists what was not done.
func (p page) remains(r *wire.Rest) {
	for _, f := range r.Failures {
		p.row("remains", "%s: %s", words.Printable(f.Path), words.Line(f.Err.Error()))
	}
	if n := r.Failed - int64(len(r.Failures)); n > 0 {
		p.row("remains", "%d more", n)
	}
}

// pathsInDatastore finds the one datastore of all paths, and the paths below BACKING.
func pathsInDatastore(command string, paths []string) (root string, rel []string, err error) {
	for _, path := range paths {
		in, at, err := placeInDatastore(path)
		if err != nil {
			return "", nil, err
		}
		if root != "" && in != root {
			return "", nil, advice.Usagef("%s: %s and %s are different datastores: one at a time", command, root, in)
		}
		root, rel = in, append(rel, at)
	}
	return root, rel, nil
}

// requestFailure makes a request that makes no sense a mistake of the person's.
func requestFailure(err error) error {
	if errors.Is(err, wire.ErrRequest) {
		return advice.Usage(err)
	}
	return err
}
