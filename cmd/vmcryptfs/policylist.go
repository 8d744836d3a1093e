package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"

	"vmcryptfs/fs/daemon"
	"vmcryptfs/fs/datastore"
	"vmcryptfs/fs/policy"
)

// policyList shows the policies of a datastore, and its places.
func (p *program) policyList(ctx context.Context, args []string) error {
	var k keyFlags
	f := p.flags("policy list")
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
	list, err := listPolicies(ctx, root, k)
	if err != nil {
		return err
	}
	if *asJSON {
		return p.printJSON(list)
	}
	page{to: p.stdout}.policies(&list)
	return nil
}

// listPolicies lists the policies of the datastore at root by its daemon or, without a mount, in this
// process.
func listPolicies(ctx context.Context, root string, k keyFlags) (list policy.Listing, err error) {
	at, err := filepath.Abs(root)
	if err == nil {
		at, err = filepath.EvalSymlinks(at)
	}
	if err != nil {
		return list, err
	}
	client, err := daemonOf(ctx, at)
	if err != nil {
		return list, err
	}
	if client != nil {
		return client.Policies(ctx)
	}
	store, err := datastore.Open(at, false)
	if err != nil {
		return list, err
	}
	defer store.Close()
	c := policy.Config{Store: store}
	err = withKeys(ctx, k, func(source *daemon.KeySource) (err error) {
		if len(source.Cache.Providers()) > 0 { // else nothing can be said of keys
			c.Keys = source.Cache
		}
		list, err = policy.List(ctx, c)
		return err
	})
	return list, err
}

// policies shows a list.
func (p page) policies(l *policy.Listing) {
	t := newTable(p, "POLICY", "NEW FILES", "KEY", "PROVIDER", "PLACES")
	for i := range l.Policies {
		o := &l.Policies[i]
		what := "clear"
		if o.Encrypt {
			what = "encrypted"
		}
		t.row(o.Name, what, orDash(o.KEK), orDash(o.Provider), fmt.Sprint(o.Places))
	}
	t.end()
	if len(l.Places) > 0 {
		fmt.Fprintln(p.to)
		p.places(l.Places)
	}
	if len(l.Strays) > 0 {
		fmt.Fprintln(p.to)
		p.strays(l.Strays)
	}
	if !l.Complete {
		fmt.Fprintln(p.to, "\nnot all directories could be looked through for tags of places")
	}
}

// places shows which directories have which policies.
func (p page) places(list []policy.Place) {
	t := newTable(p, "PLACE", "POLICY", "KEY", "HOLDS")
	for i := range list {
		o := &list[i]
		key := ""
		if o.KEK != nil {
			key = o.KEK.Identifier
		}
		t.row(o.Path, o.Policy, orDash(key), holdsText(o))
	}
	t.end()
}

// strays shows the tags in directories that are not their places.
func (p page) strays(list []policy.Stray) {
	t := newTable(p, "TAG IN", "OF PLACE")
	for i := range list {
		of := list[i].Place
		if of == "" {
			of = "none: " + list[i].ID
		}
		t.row(list[i].Path, of)
	}
	t.end()
}

// holdsText says whether a place holds, why not, and what else there is to say.
func holdsText(p *policy.Place) string {
	texts := []string{"yes"}
	if !p.Holds {
		texts[0] = "no"
	}
	if p.Why != "" {
		texts[0] += ": " + p.Why
	}
	if len(p.Encrypt) > 0 {
		texts = append(texts, "encrypt "+strings.Join(p.Encrypt, " "))
	}
	if len(p.Clear) > 0 {
		texts = append(texts, "clear "+strings.Join(p.Clear, " "))
	}
	if p.Adopt {
		texts = append(texts, "adopts cleartext")
	}
	return strings.Join(texts, "; ")
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
