package mounts

import (
	"path/filepath"
	"strings"
)

// The kernel sends an unmount of m on to the mounts that receive changes from the parent of m:
// peers and slaves of the parent (mount_namespaces(7)). The copies of m on those mounts go with m,
// and all other copies stay. The sandboxes of systemd's services receive, so their copies hold
// nothing; a container commonly receives nothing, so its copy holds the file system.

// goesAlong gives the copies of m, by mount id, that an unmount of m ends too.
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
		// A copy below another mount stays.
		goes[c.ID] = receives && parent.Device == under.Device && place(c, parent) == place(m, under) && !bearing[c.ID]
	}
	return goes
}

// reached gives all peer groups that receive a change in the peer group first, including first.
func reached(spaces []namespace, first int) map[int]bool {
	slaves := make(map[int][]int) // peer groups by the group whose changes they receive
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

// place is the path of m in the file system of its parent.
func place(m, parent Mount) string {
	return filepath.Join(parent.Root, strings.TrimPrefix(m.Mountpoint, parent.Mountpoint))
}
