package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/pflag"

	"vmcryptfs/advice"
	"vmcryptfs/fs/daemon"
	"vmcryptfs/fs/datastore"
	"vmcryptfs/fs/policy"
	"vmcryptfs/fs/wire"
	"vmcryptfs/words"
)

// policyChange is a command that changes policies.
type policyChange struct {
	*program
	keys keyFlags
	json bool
}

// add adds the flags of all such commands.
func (c *policyChange) add(f *pflag.FlagSet) {
	f.BoolVar(&c.json, "json", false, "print JSON")
	c.keys.add(f)
}

// do does r for the datastore at root, an absolute path without symbolic links, and prints what came
// of it.
func (c *policyChange) do(ctx context.Context, root string, r policy.Request) error {
	ctx, stop := interruptible(ctx)
	defer stop()
	result, err := c.change(ctx, root, r)
	if err != nil {
		return policyFailure(interrupted(ctx, err))
	}
	if c.json {
		return c.printJSON(result)
	}
	c.print(root, &r, &result)
	return nil
}

// change has the datastore's daemon do r or, without a mount, does r in this process.
func (c *policyChange) change(ctx context.Context, root string, r policy.Request) (policy.Result, error) {
	client, err := daemonOf(ctx, root)
	if err != nil {
		return policy.Result{}, err
	}
	if client != nil { // no key is asked for here
		return client.ChangePolicies(ctx, r)
	}
	store, err := datastore.Open(root, true)
	if errors.Is(err, datastore.ErrBusy) {
		err = unreachable(ctx, root, err)
	}
	if err != nil {
		return policy.Result{}, err
	}
	defer store.Close()
	var result policy.Result
	err = withKeys(ctx, c.keys, func(source *daemon.KeySource) (err error) {
		id := store.Settings().ID.String()
		result, err = policy.Do(ctx, policy.Config{Store: store, Keys: source.Cache, Label: daemon.PlaceLabelOf(id)}, r)
		log, endLog := daemon.CommandLog(id)
		defer endLog()
		daemon.LogPolicy(log, r, result, err)
		return source.Explain(err)
	})
	return result, err
}

// policyFailure makes a request that makes no sense a mistake of the person's. The advice is what the
// package says after the last semicolon.
func policyFailure(err error) error {
	if !errors.Is(err, wire.ErrRequest) {
		return err
	}
	text, do := err.Error(), "vmcryptfs help policy tells what goes together"
	if at := strings.LastIndex(text, "; "); at > 0 {
		text, do = text[:at], text[at+2:]
	}
	text = strings.Replace(text, policy.ErrRequest.Error()+": ", "", 1)
	return advice.New(advice.Usage(errors.New(text)), do)
}

// print says what was changed.
func (c *policyChange) print(root string, r *policy.Request, result *policy.Result) {
	if !result.Changed {
		fmt.Fprintln(c.stdout, "policies unchanged")
		return
	}
	switch r.Do {
	case policy.DoDefine:
		fmt.Fprintf(c.stdout, "policy %s defined\n", words.Printable(r.Name))
	case policy.DoRemove:
		fmt.Fprintf(c.stdout, "policy %s removed\n", words.Printable(r.Name))
	}
	for i := range result.Places {
		fmt.Fprintln(c.stdout, words.Printable(changedText(&result.Places[i])))
	}
	fmt.Fprintf(c.stdout, "settings of %s changed, serial %d\n", words.Printable(root), result.Serial)
}

// changedText says what a place has by now.
func changedText(p *policy.Changed) string {
	text := fmt.Sprintf("place %s: policy %s", p.Path, p.Policy)
	if p.Removed {
		return fmt.Sprintf("place %s: no policy of its own any more", p.Path)
	}
	if p.KEK != nil {
		text += fmt.Sprintf(", key %s of provider %s", p.KEK.Identifier, p.KEK.Provider)
	}
	if p.Created {
		text += ", new"
	}
	if p.Adopt {
		text += "; cleartext that lies there is served until it is moved (vmcryptfs policy apply)"
	}
	return text
}
