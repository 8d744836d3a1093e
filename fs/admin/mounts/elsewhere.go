package mounts

import (
	"os"
	"path/filepath"
	"strconv"
)

// Elsewhere finds other mount namespaces that have a copy of m, of each one process and
// where it sees m: a container's, a unit's with PrivateMounts. Such a copy stays when m
// is unmounted. Namespaces of processes that this user may not look into stay unseen.
func Elsewhere(m Mount) []Holder {
	seen := make(map[string]bool) // namespaces
	if ours, err := os.Readlink("/proc/self/ns/mnt"); err == nil {
		seen[ours] = true
	}
	procs, _ := filepath.Glob("/proc/[0-9]*") // the pattern is well-formed
	var holders []Holder
	for _, dir := range procs {
		namespace, err := os.Readlink(filepath.Join(dir, "ns/mnt"))
		pid, notPID := strconv.Atoi(filepath.Base(dir))
		if err != nil || notPID != nil || seen[namespace] {
			continue
		}
		seen[namespace] = true
		if path, ok := mountedFor(m, dir); ok {
			what := path + " in a mount namespace of its own"
			holders = append(holders, Holder{PID: pid, Name: commandName(dir), What: what})
		}
	}
	return holders
}

// mountedFor tells where the process at /proc/PID sees a copy of m. The source counts,
// too: once m is unmounted its device number is free for another mount.
func mountedFor(m Mount, proc string) (mountpoint string, ok bool) {
	f, err := os.Open(filepath.Join(proc, "mountinfo"))
	if err != nil {
		return "", false
	}
	defer f.Close()
	all, err := parse(f)
	if err != nil {
		return "", false
	}
	for _, other := range all {
		if other.Device == m.Device && other.Type == FSType && other.Source == m.Source {
			return other.Mountpoint, true
		}
	}
	return "", false
}
