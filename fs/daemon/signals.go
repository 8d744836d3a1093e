package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"

	"vmcryptfs/fs/mounts"
	"vmcryptfs/fs/transport"
)

// giveUp is the signal by which an interrupted mount command ends the start of a daemon. Once the
// mount is there, giveUp ends only a mount that replaced no dead one.
const giveUp = unix.SIGUSR1

// onSignal makes SIGTERM and SIGINT ask for an unmount. Before the mount is there, both end the
// start. onSignal decides under d.mu, as attach sets server: a signal meets either the start or
// the mount. giveUp does the same, with one exception: a mount in the place of a dead one stays,
// since guests use it.
func (d *daemon) onSignal(endStart func()) (stop func()) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGTERM, unix.SIGINT, giveUp)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for sig := range signals {
			d.mu.Lock()
			server := d.server
			if server == nil {
				endStart()
			}
			d.mu.Unlock()
			if server != nil && !(sig == giveUp && d.dead != nil) {
				d.unmount(server)
			}
		}
	}()
	return func() {
		signal.Stop(signals)
		close(signals)
		<-done
	}
}

// unmount ends the mount. A mount in use is served on, and the log names the holders.
func (d *daemon) unmount(server transport.Server) {
	ctx, cancel := context.WithTimeout(context.Background(), EndTime)
	defer cancel()
	m, err := server.Find()
	if err == nil {
		err = mounts.AwaitAlone(ctx, m)
	}
	if err == nil {
		err = server.Unmount(false)
	}
	if err == nil {
		return
	}
	if holders, gone := d.keptBy(ctx); gone {
		err = fmt.Errorf("unmounted already, but %w", &mounts.BusyError{Mountpoint: d.at.Mountpoint, Holders: holders})
	} else if errors.Is(err, unix.EBUSY) && !named(err) {
		if holders, holdErr := mounts.Holders(ctx, m); holdErr == nil {
			err = &mounts.BusyError{Mountpoint: m.Mountpoint, Holders: holders}
		}
	}
	d.log.Warn("not unmounted; serving on", "error", err)
}

// named reports whether err names the holders of the mount.
func named(err error) bool {
	_, ok := errors.AsType[*mounts.BusyError](err)
	return ok
}
