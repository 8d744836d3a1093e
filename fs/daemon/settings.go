package daemon

import (
	"context"
	"fmt"

	"golang.org/x/sys/unix"

	"vmcryptfs/fs/admin"
	"vmcryptfs/fs/wire"
	"vmcryptfs/keys"
	"vmcryptfs/layout"
)

// Settings are the proven settings of the mounted datastore. A change begins from them, and not
// from the file in BACKING: somebody may have written to that without the key, and a person who
// saves what an editor shows would have it sealed.
func (d *daemon) Settings(ctx context.Context) (s admin.Settings, err error) {
	err = d.withSealKey(ctx, func(*keys.KEK) error {
		if err := d.store.CheckUnchanged(); err != nil {
			return err
		}
		s = admin.NewSettings(d.store.Settings())
		return nil
	})
	return s, err
}

// ChangeSettings seals other rules for the mounted datastore and has the file system take them
// up: after it nothing is made by the old rules.
func (d *daemon) ChangeSettings(ctx context.Context, r admin.SettingsRequest) (serial uint64, err error) {
	peer, _ := admin.PeerOf(ctx) // the server's
	log := d.log.With("uid", peer.UID, "pid", peer.PID, "backing", d.config.Backing)
	err = d.withSealKey(ctx, func(kek *keys.KEK) error {
		next := *d.store.Settings()
		next.Serial, next.Encrypt, next.Clear = r.Serial, r.Encrypt, r.Clear
		if err := next.Check(); err != nil {
			return fmt.Errorf("settings: %w: %w", wire.ErrRequest, err)
		}
		err := d.sealSettings(next, kek)
		d.fs.TakeUpSettings() // also after an error: this host's memory may be the only thing that failed
		return err
	})
	if err != nil {
		log.Warn("change of settings failed", "from_serial", r.Serial, "error", err)
		return 0, err
	}
	log.Info("settings changed", "serial", r.Serial+1)
	return r.Serial + 1, nil
}

// withSealKey calls use with the KEK by which the settings are sealed and proven. Errors before
// use is called: unix.EROFS, keys.ErrSeal, a keys.ErrNoKey. The datastore may get another KEK
// while use runs: Store.Change refuses the one of before.
func (d *daemon) withSealKey(ctx context.Context, use func(*keys.KEK) error) error {
	if err := d.writable(); err != nil {
		return err
	}
	if !d.store.Verified() {
		if err := d.verify(ctx, firstVerify); err != nil {
			return fmt.Errorf("the settings are not verified: %w", err)
		}
	}
	return d.keys.Cache.Use(ctx, d.store.KEK(), use)
}

// sealSettings is Store.Change, unless the mount is read-only: a mount that becomes so waits
// until the file is written.
func (d *daemon) sealSettings(next layout.Settings, kek *keys.KEK) error {
	d.modes.Lock()
	defer d.modes.Unlock()
	if err := d.writable(); err != nil {
		return err
	}
	return d.store.Change(next, kek)
}

// editSettings seals what edit makes of the settings, unless the mount is read-only, and has the
// file system take it up.
func (d *daemon) editSettings(ctx context.Context, edit func(*layout.Settings) error) error {
	return d.withSealKey(ctx, func(*keys.KEK) error { // so that no key is fetched under modes
		err := d.editWritable(ctx, edit)
		d.fs.TakeUpSettings() // also after an error: this host's memory may be the only thing that failed
		return err
	})
}

func (d *daemon) editWritable(ctx context.Context, edit func(*layout.Settings) error) error {
	d.modes.Lock()
	defer d.modes.Unlock()
	if err := d.writable(); err != nil {
		return err
	}
	return d.store.Edit(ctx, d.keys.Cache, edit)
}

// settlePlaces ends renames of places that a crash cut off. A failure is no more than a path that
// leads nowhere.
func (d *daemon) settlePlaces(ctx context.Context) {
	if err := d.fs.SettlePlaces(ctx); err != nil && ctx.Err() == nil {
		d.log.Warn("places keep two paths in the settings", "backing", d.config.Backing, "error", err)
	}
}

// writable is unix.EROFS for a mount that is read-only.
func (d *daemon) writable() error {
	if d.fs.ReadOnly() {
		return fmt.Errorf("%s is mounted read-only: %w", d.config.Mountpoint, unix.EROFS)
	}
	return nil
}
