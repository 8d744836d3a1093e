package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"

	"vmcryptfs/advice"
	"vmcryptfs/fs/policy"
	"vmcryptfs/layout"
)

const policyUsage = "list|define|remove BACKING, or set|check|apply|rebind DIR"

// policy runs one of the commands about what new files of which place get.
func (p *program) policy(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return advice.New(advice.Usagef("policy: no command given"), "usage: vmcryptfs policy "+policyUsage)
	}
	switch args[0] {
	case "list":
		return p.policyList(ctx, args[1:])
	case "define":
		return p.policyDefine(ctx, args[1:])
	case "remove":
		return p.policyRemove(ctx, args[1:])
	case "set":
		return p.policySet(ctx, args[1:])
	case "check":
		return p.policyCheck(ctx, args[1:])
	case "apply":
		return p.policyApply(ctx, args[1:])
	case "rebind":
		return p.policyRebind(ctx, args[1:])
	case "-h", "--help":
		p.printUsage("policy", policyUsage, "")
		return errHelped
	}
	return subcommand("policy", args[0], policyUsage, "list", "define", "remove", "set", "check", "apply", "rebind")
}

// policyDefine makes a policy, or gives one another meaning.
func (p *program) policyDefine(ctx context.Context, args []string) error {
	r := policy.Request{Do: policy.DoDefine}
	c := policyChange{program: p}
	f := p.flags("policy define")
	encrypts := f.Bool("encrypt", false, "what is encrypted by the rules is encrypted")
	clears := f.Bool("clear", false, "disks, memory, NVRAM and swap of a virtual machine lie in clear")
	f.StringVar(&r.KEK, "kek", layout.KEKOfDatastore, "the key of new files: datastore, vm (each place its own), or a key's identifier")
	f.StringVar(&r.Provider, "provider", "", "the provider of that key (default: the datastore's)")
	c.add(f)
	args, err := p.parse(f, args, "BACKING NAME --encrypt|--clear [--kek datastore|vm|ID] [--provider P] [--json]", 2, 2)
	if err != nil {
		return err
	}
	if *encrypts == *clears {
		return advice.Usagef("policy define: --encrypt or --clear, one of them")
	}
	if *clears && !f.Changed("kek") {
		r.KEK = ""
	}
	r.Name, r.Encrypt = args[1], *encrypts
	return c.atDatastore(ctx, args[0], r)
}

// policyRemove takes a policy away that no place has.
func (p *program) policyRemove(ctx context.Context, args []string) error {
	c := policyChange{program: p}
	f := p.flags("policy remove")
	c.add(f)
	args, err := p.parse(f, args, "BACKING NAME [--json]", 2, 2)
	if err != nil {
		return err
	}
	return c.atDatastore(ctx, args[0], policy.Request{Do: policy.DoRemove, Name: args[1]})
}

// policySet gives a directory or a disk a policy, or takes the directory's away.
func (p *program) policySet(ctx context.Context, args []string) error {
	r := policy.Request{Do: policy.DoSet}
	c := policyChange{program: p}
	f := p.flags("policy set")
	f.StringVar(&r.KEK, "kek", "", "the key of this place, where the policy gives each its own: new, or a key's identifier (default: the one it has, else a new one)")
	f.StringVar(&r.Provider, "provider", "", "refuse unless the policy's keys are of this provider")
	remove := f.Bool("remove", false, "DIR has no policy of its own any more")
	c.add(f)
	args, err := p.parse(f, args, "DIR|DISK NAME [--kek new|ID] [--provider P] [--json], or DIR --remove", 1, 2)
	if err != nil {
		return err
	}
	if *remove != (len(args) == 1) || *remove && (f.Changed("kek") || f.Changed("provider")) {
		return advice.New(advice.Usagef("policy set: name a policy, or give --remove alone"), "usage: vmcryptfs policy set DIR|DISK NAME, or vmcryptfs policy set DIR --remove")
	}
	if *remove {
		r.Do = policy.DoUnset
	} else {
		r.Name = args[1]
	}
	return c.atPath(ctx, args[0], r)
}

// policyRebind takes a place up where its directory is now.
func (p *program) policyRebind(ctx context.Context, args []string) error {
	c := policyChange{program: p}
	f := p.flags("policy rebind")
	from := f.String("from", "", "the path that policy list shows for the place, if several lead nowhere")
	c.add(f)
	args, err := p.parse(f, args, "DIR [--from PATH] [--json]", 1, 1)
	if err != nil {
		return err
	}
	return c.atPath(ctx, args[0], policy.Request{Do: policy.DoRebind, From: []byte(*from)})
}

// atPath does r for a path below the mountpoint or below BACKING. A path of r.From may be below
// BACKING as an absolute one, too.
func (c *policyChange) atPath(ctx context.Context, path string, r policy.Request) error {
	root, rel, err := placeInDatastore(path)
	if r.Do == policy.DoUnset && errors.Is(err, os.ErrNotExist) {
		root, rel, err = goneFromDatastore(path)
	}
	if err != nil {
		return err
	}
	r.Path = []byte(rel)
	if from := string(r.From); filepath.IsAbs(from) {
		below, err := filepath.Rel(root, from)
		if err != nil || strings.HasPrefix(below, "..") {
			return advice.New(advice.Usagef("policy rebind: %s is not below %s", from, root), "give --from as vmcryptfs policy list shows it")
		}
		r.From = []byte(below)
	}
	return c.do(ctx, root, r)
}

// goneFromDatastore is placeInDatastore of a path where nothing is any more.
func goneFromDatastore(path string) (root, rel string, err error) {
	at, err := filepath.Abs(path)
	if err != nil {
		return "", "", err
	}
	for gone := ""; ; {
		gone = filepath.Join(filepath.Base(at), gone)
		at = filepath.Dir(at)
		root, rel, err = placeInDatastore(at)
		if err == nil {
			return root, filepath.Join(rel, gone), nil
		}
		if !errors.Is(err, os.ErrNotExist) || at == "/" {
			return "", "", err
		}
	}
}

// atDatastore does r for the datastore at or under a path, BACKING or a mount.
func (c *policyChange) atDatastore(ctx context.Context, path string, r policy.Request) error {
	backing, err := datastoreAt(path)
	if err != nil {
		return err
	}
	root, err := filepath.Abs(backing)
	if err == nil {
		root, err = filepath.EvalSymlinks(root)
	}
	if err != nil {
		return err
	}
	return c.do(ctx, root, r)
}
