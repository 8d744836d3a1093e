package main

import (
	"context"
	"log/slog"

	"vmcryptfs/advice"
	"vmcryptfs/fs/daemon"
	"vmcryptfs/keys"
)

const kmsUsage = "check [PROVIDER…] | list BACKING"

// kms asks the key servers how they are, and about a datastore's keys.
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

// openKMS opens the key source, which must have a provider.
func openKMS(ctx context.Context, k keyFlags) (*daemon.KeySource, error) {
	source, err := daemon.OpenKeys(ctx, k.KeyConfig, slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, err
	}
	if note := source.Note(); note != "" {
		source.Close()
		return nil, advice.Usagef("%s", note)
	}
	return source, nil
}

// kmsError says that a provider cannot be used; it is a keys.ErrNoKey.
type kmsError struct {
	text string
	err  error
}

func (e *kmsError) Error() string   { return e.text }
func (e *kmsError) Unwrap() []error { return []error{keys.ErrNoKey, e.err} }
