package main

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"vmcryptfs/fs/admin"
	"vmcryptfs/fs/daemon"
	"vmcryptfs/fs/mounts"
)

// unserved is a mount with a dead or silent daemon, in status and the JSON of status.
type unserved struct {
	State      string `json:"state"` // admin.StateDead or StateSilent
	Mountpoint string `json:"mountpoint"`
	Backing    string `json:"backing"`
	Error      string `json:"error"`
}

// err is the error of a command for the mount. For a dead mount, the error is
// mounts.ErrNotMounted.
func (u unserved) err() error {
	if u.State == admin.StateDead {
		return fmt.Errorf("%s: %s: %w", u.Mountpoint, u.Error, mounts.ErrNotMounted)
	}
	return fmt.Errorf("%s: %s", u.Mountpoint, u.Error)
}

// findUnserved lists the dead and silent mounts of this host, sorted by mountpoint. found are the
// mounts whose daemons have answered; bind mounts of found are not asked. Mounts of other users
// are not asked either, since such answers prove nothing.
func findUnserved(found []admin.Mount) ([]unserved, error) {
	all, err := mounts.All()
	if err != nil {
		return nil, err
	}
	served := make(map[string]bool) // devices
	for _, m := range all {
		if slices.ContainsFunc(found, func(f admin.Mount) bool { return f.Mountpoint == m.Mountpoint && f.Backing == m.Source }) {
			served[m.Device] = true
		}
	}
	all = slices.DeleteFunc(all, func(m mounts.Mount) bool {
		uid, ok := m.Owner()
		return served[m.Device] || ok && uid != os.Geteuid()
	})
	states := make([]unserved, len(all))
	var asking sync.WaitGroup
	for i, m := range all {
		asking.Go(func() { states[i] = stateOf(m) })
	}
	asking.Wait()
	states = slices.DeleteFunc(states, func(u unserved) bool { return u.State == "" })
	slices.SortFunc(states, func(a, b unserved) int { return cmp.Compare(a.Mountpoint, b.Mountpoint) })
	return states, nil
}

// stateOf asks a mount without a known daemon. State is empty for an answering mount: the mount is
// another user's, or a new mount in the same place.
func stateOf(m mounts.Mount) unserved {
	u := unserved{Mountpoint: m.Mountpoint, Backing: m.Source}
	switch err := daemon.Ask(m.Mountpoint, daemon.DeadTime); {
	case errors.Is(err, unix.ENOTCONN):
		u.State = admin.StateDead
		u.Error = fmt.Sprintf("its daemon is gone; vmcryptfs mount %s %s takes its place, vmcryptfs umount %s clears it", m.Source, m.Mountpoint, m.Mountpoint)
	case errors.Is(err, daemon.ErrSilent):
		u.State = admin.StateSilent
		u.Error = fmt.Sprintf("its daemon does not answer (%v)", err)
	}
	return u
}
