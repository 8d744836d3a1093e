package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"vmcryptfs/advice"
	"vmcryptfs/fs/admin"
	"vmcryptfs/fs/datastore"
)

// changeMounted has the daemon of a mounted datastore seal what next makes of the settings. busy
// is why this process cannot do that itself. No key is asked for here.
func (p *program) changeMounted(ctx context.Context, backing string, busy error, next change) error {
	path, err := filepath.Abs(backing)
	if err == nil {
		path, err = filepath.EvalSymlinks(path)
	}
	if err != nil {
		return err
	}
	client, err := daemonOf(ctx, path)
	if err != nil {
		return err
	}
	if client == nil {
		return unreachable(ctx, path, busy)
	}
	return p.changeBy(ctx, client, backing, path, next)
}

// unreachable says why the daemon of the datastore at path cannot be asked. A mount that this
// host lists has the answer of every command. Else another host has the datastore, or a command.
func unreachable(ctx context.Context, path string, busy error) error {
	if _, err := meant(path); err == nil {
		if _, _, err := daemonAt(ctx, path); err != nil {
			return err
		}
	}
	return advice.New(fmt.Errorf("%w, and no daemon of this host serves it", busy), "edit on the host where it is mounted, or end the command that has it")
}

// changeBy is changeMounted by the daemon that client speaks to.
func (p *program) changeBy(ctx context.Context, client *admin.Client, backing, path string, next change) error {
	// Before the editor: what refuses the change is no surprise for after the work.
	old, err := client.Settings(ctx)
	if errors.Is(err, datastore.ErrChanged) { // nothing that another try would mend
		err = advice.New(err, "put the settings back that were sealed last, or mount it again if the file is right")
	}
	if err != nil {
		return fmt.Errorf("settings of %s: %w", backing, err)
	}
	return p.makeChange(ctx, backing, path, old, next, client.ChangeSettings)
}
