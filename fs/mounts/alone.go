package mounts

import (
	"context"
	"time"
)

// Grace is how long a daemon takes at most to end where nothing holds its mount. A copy of the
// mount may be there as long and pass: a process that makes itself a mount namespace begins with
// a copy of each mount.
const Grace = 2 * time.Second

// AwaitAlone makes sure, before anything is taken away, that the file system of m ends with m. It
// waits for Grace, then gives a BusyError.
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
