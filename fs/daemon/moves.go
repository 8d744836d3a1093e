package daemon

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"time"

	"vmcryptfs/fs/admin"
	"vmcryptfs/fs/moves"
)

// Why all moves of a mount are paused.
const (
	becauseLocked   = "the mount is locked"
	becauseReadOnly = "the mount is read-only"
)

// goOnEvery is the pause between attempts to find the files of moves that are listed.
const goOnEvery = 30 * time.Second

// openMoves makes the manager of moves. None begins before the settings are proven.
func (d *daemon) openMoves() {
	d.moves = moves.New(moves.Config{FS: d.fs, Store: d.store, Keys: d.keys.Cache, Edit: d.editSettings, Log: d.log})
	if d.fs.ReadOnly() {
		d.moves.Halt(becauseReadOnly)
	}
}

// closeMoves ends the moves with their steps under way. What is left goes on at the next mount.
func (d *daemon) closeMoves() {
	if err := d.moves.Close(); err != nil {
		d.log.Warn("ids of moves that are over stay listed until the next mount", "error", err)
	}
}

// goOnMoving goes on with the moves that an earlier mount left.
func (d *daemon) goOnMoving(ctx context.Context) {
	tick := time.NewTicker(goOnEvery)
	defer tick.Stop()
	for d.store.Verified() {
		err := d.moves.GoOn(ctx)
		if err == nil || ctx.Err() != nil {
			return
		}
		d.log.Warn("moves that are listed may not go on", "backing", d.config.Backing, "error", err)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// CheckPolicies looks for files of the mounted datastore that differ from what their places want.
func (d *daemon) CheckPolicies(ctx context.Context, r moves.Check, each func(moves.Differ) error) (moves.Checked, error) {
	return d.moves.Check(ctx, r, each)
}

// ApplyPolicies moves files of the mounted datastore.
func (d *daemon) ApplyPolicies(ctx context.Context, r moves.Request, each func(moves.Event) error) (moves.Summary, error) {
	if err := d.writable(); err != nil { // read-only later: the moves pause
		return moves.Summary{}, err
	}
	peer, _ := admin.PeerOf(ctx) // the server's
	log := d.log.With("uid", peer.UID, "pid", peer.PID)
	log.Info("moves are asked for", "paths", strings.Join(r.Paths, " "), "deep", r.Deep, "rate", r.Rate, "jobs", r.Jobs)
	sum, err := d.moves.Apply(ctx, r, each)
	LogMoves(log, sum, err)
	return sum, err
}

// Moves lists the moves under way.
func (d *daemon) Moves(context.Context) (moves.Changed, error) {
	return moves.Changed{Moves: d.moves.List()}, nil
}

// ChangeMoves pauses, resumes or cancels moves, or accepts one.
func (d *daemon) ChangeMoves(ctx context.Context, r moves.Change) (moves.Changed, error) {
	if err := d.writable(); err != nil {
		return moves.Changed{}, err
	}
	peer, _ := admin.PeerOf(ctx) // the server's
	result, err := d.moves.Do(ctx, r)
	d.log.Info("moves changed", "uid", peer.UID, "pid", peer.PID, "do", r.Do, "which", strings.Join(r.Which, " "), "moves", len(result.Moves), "error", err)
	return result, err
}

// LogMoves logs the result of a request for moves, and each file that was not moved.
func LogMoves(log *slog.Logger, sum moves.Summary, err error) {
	if errors.Is(err, context.Canceled) {
		log.Info("a request for moves ended early; what it began is paused", "moved", sum.Moved, "bytes", sum.Bytes)
	} else {
		log.Info("moves", "moved", sum.Moved, "bytes", sum.Bytes, "remaining", sum.Left, "complete", sum.Complete, "error", err)
	}
	for _, f := range sum.Failures {
		log.Warn("not moved", "path", f.Path, "error", f.Err)
	}
}
