package daemon

import (
	"context"
	"encoding/hex"
	"fmt"
	"log/slog"

	"vmcryptfs/fs/admin"
	"vmcryptfs/fs/policy"
	"vmcryptfs/keys"
	"vmcryptfs/keys/kmip"
	"vmcryptfs/layout"
)

// Policies shows what new files of the mounted datastore get, and where.
func (d *daemon) Policies(ctx context.Context) (policy.Listing, error) {
	return policy.List(ctx, d.policyConfig())
}

// ChangePolicies changes a policy or a place of the mounted datastore, and has the file system
// take the change up.
func (d *daemon) ChangePolicies(ctx context.Context, r policy.Request) (policy.Result, error) {
	// Before a key is made: whatever would refuse the change.
	err := d.withSealKey(ctx, func(*keys.KEK) error { return d.store.CheckUnchanged() })
	if err != nil {
		return policy.Result{}, err
	}
	if r.Do == policy.DoDefine && r.Provider != "" && d.keys.Cache.Provider(r.Provider) == nil {
		// The provider may be new in kms.toml, as for a rekey.
		if err := d.keys.takeUp(ctx, r.Provider, d.log); err != nil {
			return policy.Result{}, fmt.Errorf("%w: %w", policy.ErrRequest, err)
		}
	}
	peer, _ := admin.PeerOf(ctx) // the server's
	result, err := policy.Do(ctx, d.policyConfig(), r)
	LogPolicy(d.log.With("uid", peer.UID, "pid", peer.PID), r, result, err)
	return result, err
}

func (d *daemon) policyConfig() policy.Config {
	return policy.Config{
		Store: d.store, Keys: d.keys.Cache, Label: PlaceLabelOf(d.datastoreID()),
		Writing: d.whileWritable, TakeUp: d.fs.TakeUpSettings,
	}
}

// whileWritable calls f, which writes BACKING and seals settings, unless the mount is read-only: a
// mount that becomes so waits for f. The seal's key is held meanwhile, so f fetches none.
func (d *daemon) whileWritable(ctx context.Context, f func() error) error {
	return d.withSealKey(ctx, func(*keys.KEK) error {
		d.modes.Lock()
		defer d.modes.Unlock()
		if err := d.writable(); err != nil {
			return err
		}
		return f()
	})
}

// LogPolicy logs a change of policies, and each place that it changed.
func LogPolicy(log *slog.Logger, r policy.Request, result policy.Result, err error) {
	if err != nil {
		log.Warn("change of policies failed", "do", r.Do, "policy", r.Name, "path", string(r.Path), "error", err)
		return
	}
	log.Info("policies changed", "do", r.Do, "policy", r.Name, "path", string(r.Path), "changed", result.Changed, "serial", result.Serial)
	for _, p := range result.Places {
		log.Info("place", "path", p.Path, "id", p.ID, "policy", p.Policy, "kek", p.KEK, "created", p.Created, "adopt", p.Adopt, "removed", p.Removed)
	}
}

// PlaceLabelOf is the name of a place's n-th KEK at a KMS. It is no name that a rekey looks for
// (LabelOf), which would take the KEK of one place for the datastore's.
func PlaceLabelOf(datastore string) func(place layout.FileID, n uint64) string {
	return func(place layout.FileID, n uint64) string {
		return kmip.PlaceLabel(datastore, hex.EncodeToString(place[:4]), n)
	}
}
