package main

import (
	"context"
	"errors"

	"vmcryptfs/advice"
	"vmcryptfs/cmd/vmcryptfs/doctor"
	"vmcryptfs/fs/daemon"
	"vmcryptfs/keys/kmip"
)

const kmsUsage = "check [PROVIDER…] | list BACKING"

// kms runs one of the commands about key servers and a datastore's keys.
func (p *program) kms(ctx context.Context, args []string) error {
	if len(args) > 0 {
		switch args[0] {
		case "check":
			return p.kmsCheck(ctx, args[1:])
		case "list":
			return p.kmsList(ctx, args[1:])
		case "-h", "--help":
			p.printUsage("kms", kmsUsage, "")
			return errHelped
		}
		return subcommand("kms", args[0], kmsUsage, "check", "list")
	}
	return advice.New(advice.Usagef("kms: no command given"), "usage: vmcryptfs kms "+kmsUsage)
}

// kmsCheck asks every server of the providers whether this host can use the server's keys.
func (p *program) kmsCheck(ctx context.Context, args []string) error {
	var k keyFlags
	f := p.flags("kms check")
	backing := f.String("datastore", "", "try the key of this datastore, a BACKING (default: a key that a mount on this host holds)")
	asJSON := f.Bool("json", false, "print JSON")
	k.add(f)
	names, err := p.parse(f, args, "[PROVIDER…] [--datastore BACKING] [--json]", 0, -1)
	if err != nil {
		return err
	}
	at := ""
	if *backing != "" {
		if at, err = datastoreAt(*backing); err != nil {
			return err
		}
	}
	known, err := doctor.KnownKeys(ctx, at)
	if err != nil {
		return err
	}
	return withKeys(ctx, k, func(source *daemon.KeySource) error {
		providers, err := source.KMIP(names)
		if err != nil {
			return err
		}
		return p.checkProviders(ctx, providers, known, *asJSON)
	})
}

// checkProviders checks providers. All results are printed before checkProviders returns an error.
func (p *program) checkProviders(ctx context.Context, providers []*kmip.Provider, known []doctor.KnownKey, asJSON bool) error {
	checked := []doctor.Provider{}
	var failed []error
	for _, provider := range providers {
		c, err := doctor.Check(ctx, provider, known)
		checked = append(checked, c)
		failed = append(failed, err)
	}
	if asJSON {
		return errors.Join(append(failed, p.printJSON(checked))...)
	}
	for i := range checked {
		page{to: p.stdout}.checked(&checked[i], i > 0)
	}
	return errors.Join(failed...)
}
