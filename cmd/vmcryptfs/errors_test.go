package main

import (
	"errors"
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"vmcryptfs/advice"
	"vmcryptfs/byname"
	"vmcryptfs/fs/admin"
	"vmcryptfs/fs/daemon"
	"vmcryptfs/fs/datastore"
	"vmcryptfs/fs/mounts"
	"vmcryptfs/fs/wire"
	"vmcryptfs/keys"
	"vmcryptfs/layout"
)

func TestExitCode(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		err  error
		want int
	}{
		{nil, 0},
		{errHelped, 0},
		{os.ErrNotExist, 1},
		{unix.ENOSPC, 1},
		{datastore.ErrNone, 1},
		{datastore.ErrExists, 1},
		{layout.ErrUnsupported, 1},
		{advice.Usagef("x"), 2},
		{advice.Usagef("x: %w", keys.ErrNoProvider), 2}, // a mistake in kms.toml is a mistake
		{keys.ErrNoKey, 3},
		{keys.ErrLocked, 3},
		{keys.ErrNotFound, 3},
		{keys.ErrUnreachable, 3},
		{keys.ErrRefused, 3},
		{keys.ErrKeyState, 3},
		{keys.ErrWrongKey, 3},
		{keys.ErrKeyLength, 3},
		{keys.ErrTampered, 4},
		{keys.ErrSeal, 4},
		{layout.ErrDamaged, 4},
		{layout.ErrIllFormed, 4},
		{datastore.ErrUntrusted, 4},
		{&layout.SettingsError{}, 4},
		{&byname.UnfitError{}, 4},
		{&layout.SettingsError{Err: layout.ErrUnsupported}, 1},
		{mounts.ErrNotMounted, 5},
		{&mounts.BusyError{}, 6},
		{datastore.ErrBusy, 6},
		{admin.ErrInUse, 6},
		{&daemon.Failure{Message: "x", Code: 3}, 3},
		{&wire.Error{Message: "x", Reason: "cluster_unreachable"}, 3},
		{&wire.Error{Message: "x", Reason: "settings_seal"}, 4},
		{&wire.Error{Message: "x", Reason: "failed"}, 1},
	} {
		for _, err := range []error{c.err, wrapped(c.err), errors.Join(c.err, nil)} {
			if got := exitCode(err); got != c.want {
				t.Errorf("exitCode(%v) = %d, want %d", err, got, c.want)
			}
		}
	}
}

func wrapped(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("object: %w", err)
}
