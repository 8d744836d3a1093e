package main

import (
	"context"
	"fmt"
	"log/slog"

	"vmcryptfs/fs/daemon"
	"vmcryptfs/keys"
)

// withKeys calls use with the key source named by k. The process is hardened before the first key
// enters memory. After use, withKeys closes the source, and so wipes the KEKs.
func withKeys(ctx context.Context, k keyFlags, use func(*daemon.KeySource) error) error {
	if err := keys.HardenProcess(); err != nil {
		return fmt.Errorf("protect the memory for keys: %w", err)
	}
	source, err := daemon.OpenKeys(ctx, k.KeyConfig, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	defer source.Close()
	return use(source)
}
