package mounts

import (
	"context"
	"time"
)

// Grace is how long a daemon without holders of its mount may take to end. A copy of the mount may
// exist for as long and go again: a process that makes a mount namespace begins with a copy of
// each mount.
const Grace = 2 * time.Second

// AwaitAlone makes sure, before an unmount, that the file system of m ends with m. Where other
// mounts or processes keep the file system for longer than Grace, the error is a *BusyError.
func AwaitAlone(ctx context.Context, m Mount) error {
	for deadline := time.Now().Add(Grace); ; {
		keepers, err := Keepers(ctx, m)
		if err != nil || len(keepers) == 0 {
			return err
		}
		if time.Now().After(deadline) {
			return &BusyError{Mountpoint: m.Mountpoint, Holders: keepers}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(Grace / 10):
		}
	}
}
