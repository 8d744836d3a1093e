package main

import (
	"context"
	"errors"
	"fmt"

	"vmcryptfs/words"
)

// lock wipes a mount's KEKs from memory.
func (p *program) lock(ctx context.Context, args []string) error {
	f := p.flags("lock")
	asJSON := f.Bool("json", false, "print JSON")
	args, err := p.parse(f, args, "MOUNTPOINT [--json]", 1, 1)
	if err != nil {
		return err
	}
	client, _, err := daemonAt(ctx, args[0])
	if err != nil {
		return err
	}
	result, err := client.Lock(ctx)
	if err != nil {
		return fmt.Errorf("lock %s: %w", args[0], err)
	}
	if *asJSON {
		return p.printJSON(result)
	}
	fmt.Fprintf(p.stdout, "locked; %d open encrypted files keep their keys until they are closed\n", result.OpenFiles)
	return nil
}

// unlock makes a mount fetch the keys again.
func (p *program) unlock(ctx context.Context, args []string) error {
	f := p.flags("unlock")
	asJSON := f.Bool("json", false, "print JSON")
	args, err := p.parse(f, args, "MOUNTPOINT [--json]", 1, 1)
	if err != nil {
		return err
	}
	client, _, err := daemonAt(ctx, args[0])
	if err != nil {
		return err
	}
	result := unlockResult{Unlocked: true, Key: true}
	if err = client.Unlock(ctx); err != nil {
		result = unlockResult{Unlocked: true, Problem: words.Line(err.Error())}
		err = fmt.Errorf("%s is unlocked, but cannot have its key (it is tried again when it is needed): %w", args[0], err)
	}
	switch {
	case *asJSON:
		return errors.Join(err, p.printJSON(result))
	case err == nil:
		fmt.Fprintln(p.stdout, "unlocked")
	}
	return err
}

// unlockResult is the output of unlock --json.
type unlockResult struct {
	Unlocked bool   `json:"unlocked"`
	Key      bool   `json:"key"`               // the current key was fetched
	Problem  string `json:"problem,omitempty"` // why unlock failed
}
