package main

import (
	"context"
	"fmt"

	"golang.org/x/sys/unix"

	"vmcryptfs/fs/rekey"
	"vmcryptfs/keys/kmip"
)

// Rekey puts files of the mounted datastore under another KEK. On the whole datastore,
// files that are created afterwards are under the new one too.
func (d *daemon) Rekey(ctx context.Context, r rekey.Request, each func(rekey.Event) error) (rekey.Summary, error) {
	if d.config.options.readOnly {
		return rekey.Summary{}, fmt.Errorf("rekey %s: mounted read-only: %w", d.config.mountpoint, unix.EROFS)
	}
	if r.Add != "" && d.keys.cache.Provider(r.Add) == nil {
		if err := d.addProvider(r.Add); err != nil {
			return rekey.Summary{}, err
		}
	}
	c := rekey.Config{Store: d.store, Keys: d.keys.cache, Label: labelOf(d.datastoreID()), Settle: d.fs.Settle}
	sum, err := rekey.Run(ctx, c, r, each)
	d.log.Info("rekey", "provider", sum.Provider, "key", sum.KEK, "current", sum.Current,
		"rekeyed", sum.Rekeyed, "remaining", sum.Failed, "complete", sum.Complete, "error", err)
	for _, f := range sum.Failures {
		d.log.Warn("not rekeyed", "path", f.Path, "error", f.Err)
	}
	return sum, err
}

// addProvider takes up a provider that came into kms.toml after the mount was started: a
// host with running guests is not unmounted to learn of another KMS.
func (d *daemon) addProvider(name string) error {
	path, _, err := kmsPath(d.config.keys.kms)
	if err != nil {
		return err
	}
	configs, err := kmip.LoadConfig(path)
	if err != nil {
		return fmt.Errorf("%w: provider %q: %w", rekey.ErrRequest, name, err)
	}
	for _, c := range configs {
		if c.Name != name {
			continue
		}
		p, err := kmip.Open(c, d.log)
		if err != nil {
			return err
		}
		d.log.Info("provider taken up", "provider", name, "config", path)
		return d.keys.cache.Add(p)
	}
	return fmt.Errorf("%w: provider %q is not in %s", rekey.ErrRequest, name, path)
}

// labelOf is the name of the n-th KEK of a datastore at a KMS.
func labelOf(datastore string) func(n uint64) string {
	return func(n uint64) string { return kmip.Label(datastore, int(n)) }
}
