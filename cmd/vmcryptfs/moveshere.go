package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"golang.org/x/sys/unix"

	"vmcryptfs/fs"
	"vmcryptfs/fs/daemon"
	"vmcryptfs/fs/datastore"
	"vmcryptfs/fs/moves"
	"vmcryptfs/layout"
)

// movesHere calls use with a manager of moves for the datastore at root, which is not mounted. The
// datastore's lock is held meanwhile. After use, the steps under way come to their end.
func movesHere(ctx context.Context, root string, k keyFlags, use func(*moves.Manager, *datastore.Store, *slog.Logger) error) error {
	store, err := datastore.Open(root, true)
	if errors.Is(err, datastore.ErrBusy) {
		err = unreachable(ctx, root, err)
	}
	if err != nil {
		return err
	}
	defer store.Close()
	return withKeys(ctx, k, func(source *daemon.KeySource) error {
		log, endLog := daemon.CommandLog(store.Settings().ID.String())
		defer endLog()
		if err := store.Verify(ctx, source.Cache); err != nil {
			return source.Explain(err)
		}
		unix.Umask(0) // files get the modes of those that they replace
		files, err := fs.New(fs.Config{Store: store, Keys: source.Cache, Unencrypted: fs.Write, Log: log})
		if err != nil {
			return fmt.Errorf("open %s: %w", root, err)
		}
		m := moves.New(moves.Config{FS: files, Store: store, Keys: source.Cache, Log: log,
			Edit: func(ctx context.Context, edit func(*layout.Settings) error) error {
				err := store.Edit(ctx, source.Cache, edit)
				files.TakeUpSettings()
				return err
			}})
		err = source.Explain(use(m, store, log))
		return errors.Join(err, m.Close(), files.Close())
	})
}
