package daemon

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"slices"

	"golang.org/x/sys/unix"

	"vmcryptfs/fs/admin"
	"vmcryptfs/fs/policy"
	"vmcryptfs/fs/rekey"
	"vmcryptfs/fs/wire"
	"vmcryptfs/fs/work"
	"vmcryptfs/keys/kmip"
	"vmcryptfs/layout"
)

// Rekey puts files of the mounted datastore under another KEK. After a rekey of the whole
// datastore, new files are under the new KEK too.
func (d *daemon) Rekey(ctx context.Context, r rekey.Request, each func(rekey.Event) error) (rekey.Summary, error) {
	if err := d.writable(); err != nil { // read-only later: the work ends (stopWork)
		return rekey.Summary{}, err
	}
	if r.Add != "" && d.keys.Cache.Provider(r.Add) == nil {
		// The provider may be new in kms.toml: a host with running guests learns of another KMS
		// without an unmount.
		if err := d.keys.takeUp(ctx, r.Add, d.log); err != nil {
			return rekey.Summary{}, fmt.Errorf("%w: %w", rekey.ErrRequest, err)
		}
	}
	peer, _ := admin.PeerOf(ctx) // the server's
	log := d.log.With("uid", peer.UID, "pid", peer.PID)
	begun := false
	c := rekey.Config{
		Store: d.store, Keys: d.keys.Cache, Label: LabelOf(d.datastoreID()), TakeUp: d.fs.TakeUpSettings,
		PlaceKey: PlaceKeyBy(d.policyConfig()),
	}
	sum, err := rekey.Run(ctx, c, r, func(e rekey.Event) error {
		if !begun {
			begun = true
			log.Info("rekey begins", "provider", e.Provider, "key", e.Identifier, "created", e.Created, "current", e.Current, "files", e.Total)
		}
		return each(e)
	})
	err = work.Cause(ctx, err)
	LogRekey(log, sum, err)
	return sum, err
}

// stopWork ends the running work of a mount now read-only.
func (d *daemon) stopWork(ctx context.Context) error {
	cause := fmt.Errorf("%s was made read-only meanwhile: %w", d.config.Mountpoint, unix.EROFS)
	err := d.works.Stop(ctx, cause, EndTime)
	if err != nil && ctx.Err() == nil {
		err = fmt.Errorf("%s is read-only, but %w", d.config.Mountpoint, err)
	}
	return err
}

// rekeyStatus is the rekey under way, nil if there is none.
func (d *daemon) rekeyStatus() *rekey.Status {
	s, ok := work.Now[rekey.Event](&d.works)
	if !ok {
		return nil
	}
	return rekey.NewStatus(s)
}

// PlaceKeyBy gives places other keys of their own as a change of policies does: rekey.Config.PlaceKey.
func PlaceKeyBy(c policy.Config) func(context.Context, layout.Place, string) (wire.KeyName, bool, bool, error) {
	return func(ctx context.Context, place layout.Place, want string) (key wire.KeyName, created, changed bool, err error) {
		r := policy.Request{Do: policy.DoSet, Path: []byte(place.Path), Name: place.Policy, KEK: cmp.Or(want, policy.KeyNew)}
		result, err := policy.Do(ctx, c, r)
		if err != nil {
			return key, false, false, err
		}
		if i := slices.IndexFunc(result.Places, func(p policy.Changed) bool { return p.Path == place.Path }); i >= 0 && result.Places[i].KEK != nil {
			return *result.Places[i].KEK, result.Places[i].Created, result.Changed, nil
		}
		s := c.Store.Settings()
		of, _ := s.Policy(place.Policy)
		return wire.KeyName{Provider: cmp.Or(of.Provider, s.Provider), Identifier: place.KEK}, false, false, nil
	}
}

// LogRekey logs the result of a rekey, and each file not rekeyed.
func LogRekey(log *slog.Logger, sum rekey.Summary, err error) {
	log.Info("rekey", "provider", sum.Provider, "key", sum.Identifier, "current", sum.Current, "place", sum.Place,
		"rekeyed", sum.Rekeyed, "remaining", sum.Failed, "complete", sum.Complete, "error", err)
	for _, f := range sum.Failures {
		log.Warn("not rekeyed", "path", f.Path, "error", f.Err)
	}
}

// LabelOf is the name of the n-th KEK of a datastore at a KMS.
func LabelOf(datastore string) func(n uint64) string {
	return func(n uint64) string { return kmip.Label(datastore, int(n)) }
}
