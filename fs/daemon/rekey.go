package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"vmcryptfs/fs/admin"
	"vmcryptfs/fs/rekey"
	"vmcryptfs/keys/kmip"
)

// Rekey puts files of the mounted datastore under another KEK. On the whole datastore,
// files that are created afterwards are under the new one too.
func (d *daemon) Rekey(ctx context.Context, r rekey.Request, each func(rekey.Event) error) (rekey.Summary, error) {
	peer, _ := admin.PeerOf(ctx) // the server's
	log := d.log.With("uid", peer.UID, "pid", peer.PID)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	status := &rekeyStatus{since: time.Now(), peer: peer, cancel: cancel, ended: make(chan struct{})}
	defer close(status.ended)
	d.setRekey(status)
	defer d.setRekey(nil)
	if d.fs.ReadOnly() { // after it may be stopped
		return rekey.Summary{}, fmt.Errorf("%s is mounted read-only: %w", d.config.Mountpoint, unix.EROFS)
	}
	if r.Add != "" && d.keys.Cache.Provider(r.Add) == nil {
		// It may have come into kms.toml just now: a host with running guests is not unmounted
		// to learn of another KMS.
		if err := d.keys.takeUp(ctx, r.Add, d.log); err != nil {
			return rekey.Summary{}, fmt.Errorf("%w: %w", rekey.ErrRequest, err)
		}
	}
	c := rekey.Config{Store: d.store, Keys: d.keys.Cache, Label: LabelOf(d.datastoreID()), Settle: d.fs.Settle}
	sum, err := rekey.Run(ctx, c, r, func(e rekey.Event) error {
		if status.take(e) {
			log.Info("rekey begins", "provider", e.Provider, "key", e.KEK, "created", e.Created, "current", e.Current, "files", e.Total)
		}
		return each(e)
	})
	if cause := context.Cause(ctx); err != nil && errors.Is(cause, unix.EROFS) {
		err = cause
	}
	LogRekey(log, sum, err)
	return sum, err
}

// stopRekey ends a rekey that is under way, since the mount is read-only by now.
func (d *daemon) stopRekey(ctx context.Context) error {
	d.mu.Lock()
	s := d.rekeying
	d.mu.Unlock()
	if s == nil {
		return nil
	}
	s.cancel(fmt.Errorf("%s was made read-only meanwhile: %w", d.config.Mountpoint, unix.EROFS))
	select {
	case <-s.ended:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(EndTime):
		return fmt.Errorf("%s is read-only, but a rekey has not ended within %v", d.config.Mountpoint, EndTime)
	}
}

// LogRekey tells how a rekey ended, and what it did not do.
func LogRekey(log *slog.Logger, sum rekey.Summary, err error) {
	log.Info("rekey", "provider", sum.Provider, "key", sum.KEK, "current", sum.Current,
		"rekeyed", sum.Rekeyed, "remaining", sum.Failed, "complete", sum.Complete, "error", err)
	for _, f := range sum.Failures {
		log.Warn("not rekeyed", "path", f.Path, "error", f.Err)
	}
}

// rekeyStatus is how far a rekey is.
type rekeyStatus struct {
	since time.Time  // immutable, as is peer
	peer  admin.Peer // who asked for it
	// cancel ends it, for a reason; ended is closed when it writes nothing any more.
	cancel context.CancelCauseFunc
	ended  chan struct{}

	mu   sync.Mutex
	last rekey.Event // Pass 0: it looks at keys yet
}

// take keeps the last event; it tells if that was the first.
func (s *rekeyStatus) take(e rekey.Event) (first bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	first = s.last.Pass == 0
	s.last = e
	return first
}

// setRekey has status tell of a rekey; nil: of none.
func (d *daemon) setRekey(s *rekeyStatus) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.rekeying = s
}

// rekeyStatus is the rekey under way, nil if there is none.
func (d *daemon) rekeyStatus() *admin.RekeyStatus {
	d.mu.Lock()
	s := d.rekeying
	d.mu.Unlock()
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.last
	status := &admin.RekeyStatus{
		Since: s.since, Pass: e.Pass, Done: e.Done, Total: e.Total, Rekeyed: e.Rekeyed, Failed: e.Failed, Peer: s.peer,
	}
	if e.KEK != "" {
		status.Target = &admin.KeyName{Provider: e.Provider, Identifier: e.KEK}
	}
	return status
}

// LabelOf is the name of the n-th KEK of a datastore at a KMS.
func LabelOf(datastore string) func(n uint64) string {
	return func(n uint64) string { return kmip.Label(datastore, int(n)) }
}
