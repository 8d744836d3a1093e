package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"vmcryptfs/fs/admin"
	"vmcryptfs/fs/mounts"
)

// A mount can be gone from the mountpoint (umount(8), a lazy unmount) and still be served: a copy
// of the mount in another namespace, or an open file, keeps the file system.

// whoKeeps explains err, by which BACKING is in use by another daemon. Where the mount of the
// other daemon is gone from the mountpoint, the error names the holders of the mount.
func whoKeeps(ctx context.Context, backing string, err error) error {
	info, statErr := os.Stat(backing)
	_, m, findErr := Find(ctx, func(m admin.Mount) bool {
		other, otherErr := os.Stat(m.Backing)
		return statErr == nil && otherErr == nil && os.SameFile(info, other)
	})
	if findErr != nil || m.Device == "" {
		return err
	}
	if at, findErr := mounts.Find(m.Mountpoint); findErr == nil && at.Device == m.Device {
		return fmt.Errorf("%w: it is mounted at %s", err, m.Mountpoint)
	}
	holders, holdErr := mounts.Holders(ctx, KernelMount(m))
	if holdErr != nil {
		return errors.Join(err, holdErr)
	}
	return fmt.Errorf("%w: it was unmounted, but %w; end that, or vmcryptfs umount --lazy %s", err, &mounts.BusyError{Mountpoint: m.Mountpoint, Holders: holders}, m.Mountpoint)
}

// placeTime is the pause between two looks at a mount's place.
const placeTime = 2 * time.Second

// watchPlace notices a mount gone from the mountpoint and still served, and logs the holders of
// the mount. After Leave, watchPlace ends the connection once two conditions hold: the only
// holders are copies of the mount in other namespaces, and no file is open.
func (d *daemon) watchPlace(ctx context.Context) {
	told, asked := false, false // asked: to leave, at the last look already
	for pause := placeTime; ; {
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		d.takeMode(ctx)
		began := time.Now()
		holders, gone := d.keptBy(ctx)
		pause = max(placeTime, 20*time.Since(began)) // /proc may be large
		if !gone || ctx.Err() != nil {
			told = false
			if asked && ctx.Err() == nil {
				d.leaving.Store(false) // the unmount after Leave has failed
			}
			asked = d.leaving.Load()
			continue
		}
		if !told {
			told = true
			d.log.Warn("the mount is gone from its place; serving on", "error", &mounts.BusyError{Mountpoint: d.at.Mountpoint, Holders: holders})
		}
		if d.leaving.Load() && d.fs.Stats().OpenFiles == 0 && allElsewhere(holders) {
			d.log.Info("only copies of the mount in other namespaces are left; ending, as umount --lazy asked for", "mountpoint", d.at.Mountpoint)
			if err := mounts.Abort(d.at); err != nil {
				d.log.Error("the connection does not end", "error", err)
			}
		}
	}
}

// keptBy gives the holders of a mount gone from the mountpoint. gone is false for a mount in
// place.
func (d *daemon) keptBy(ctx context.Context) (holders []mounts.Holder, gone bool) {
	_, inPlace, err := d.inPlace()
	if inPlace || err != nil || d.at.Device == "" {
		return nil, false
	}
	if holders, err = mounts.Holders(ctx, d.at); err != nil {
		d.log.Warn("who keeps the mount is not known", "error", err)
	}
	return holders, err == nil
}

// place reports whether the mount is at the mountpoint, and names the holders of a mount gone from
// there.
func (d *daemon) place(ctx context.Context) admin.Place {
	holders, gone := d.keptBy(ctx)
	p := admin.Place{Gone: gone}
	for _, h := range holders {
		p.KeptBy = append(p.KeptBy, h.String())
	}
	return p
}

// goneWarning is the warning for people about a mount gone from the mountpoint and still served.
func goneWarning(s admin.Status) string {
	who := "somebody who is not to be seen"
	if len(s.KeptBy) > 0 {
		who = strings.Join(s.KeptBy, "; ")
	}
	return fmt.Sprintf("%s is unmounted and BACKING in use all the same: %s; end that, or vmcryptfs umount --lazy %s", s.Mountpoint, who, s.Mountpoint)
}

// inPlace gives the mount as the kernel lists it now. ok is false where the kernel lists none.
func (d *daemon) inPlace() (m mounts.Mount, ok bool, err error) {
	all, err := mounts.List()
	i := slices.IndexFunc(all, d.at.Is)
	if err != nil || i < 0 {
		return mounts.Mount{}, false, err
	}
	return all[i], true, nil
}

// takeMode takes over the mount's mode: mount -i asks nobody.
func (d *daemon) takeMode(ctx context.Context) {
	d.modes.Lock()
	defer d.modes.Unlock()
	m, ok, err := d.inPlace()
	if ok {
		err = d.follow(ctx, m)
	}
	if err != nil {
		d.log.Error("the mount's mode", "error", err)
	}
}

// allElsewhere reports whether there are holders and each is a mount of another namespace.
func allElsewhere(holders []mounts.Holder) bool {
	for _, h := range holders {
		if !h.Elsewhere {
			return false
		}
	}
	return len(holders) > 0
}

// Leave has the daemon end once nothing but copies of the mount in other namespaces is left.
func (d *daemon) Leave(context.Context) error {
	d.leaving.Store(true)
	return nil
}
