package mounts

import (
	"path/filepath"
	"strings"
)

// An unmount of m is sent on to where the mount that m lies on sends its changes: to its peers
// and to its slaves (mount_namespaces(7)). Copies of m there go with it; all others stay. So
// the copies that the sandboxes of systemd's services have are in nobody's way, and those
// of a container are.

// goesAlong tells of copies of m, by mount id, which go when m is unmounted.
func goesAlong(spaces []namespace, m Mount, copies []Mount) map[int]bool {
	parents, bearing := make(map[int]Mount), make(map[int]bool)
	for _, s := range spaces {
		for _, other := range s.all {
			parents[other.ID] = other
			bearing[other.Parent] = true
		}
	}
	goes := make(map[int]bool)
	under, ok := parents[m.Parent]
	if !ok || under.Shared == 0 {
		return goes
	}
	groups := reached(spaces, under.Shared)
	for _, c := range copies {
		parent, ok := parents[c.Parent]
		receives := ok && (groups[parent.Shared] || groups[parent.Master])
		// What has a mount of its own on it stays.
		goes[c.ID] = receives && parent.Device == under.Device && place(c, parent) == place(m, under) && !bearing[c.ID]
	}
	return goes
}

// reached gives the peer groups that changes of the peer group first come to.
func reached(spaces []namespace, first int) map[int]bool {
	slaves := make(map[int][]int) // peer groups by the one that they have changes from
	for _, s := range spaces {
		for _, m := range s.all {
			if m.Master != 0 && m.Shared != 0 {
				slaves[m.Master] = append(slaves[m.Master], m.Shared)
			}
		}
	}
	groups := map[int]bool{first: true}
	for open := []int{first}; len(open) > 0; {
		group := open[len(open)-1]
		open = open[:len(open)-1]
		for _, slave := range slaves[group] {
			if !groups[slave] {
				groups[slave] = true
				open = append(open, slave)
			}
		}
	}
	return groups
}

// place is where m lies in the file system of its parent.
func place(m, parent Mount) string {
	return filepath.Join(parent.Root, strings.TrimPrefix(m.Mountpoint, parent.Mountpoint))
}
