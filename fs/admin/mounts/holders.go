package mounts

import (
	"bufio"
	"bytes"
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Holder is one user of a mount that keeps it from being unmounted.
type Holder struct {
	PID  int    // 0: the kernel itself, for What
	Name string // command name
	What string // a path below the mount, or "mount /a/b", "loop /dev/loop0", "swap /a/b"
}

// String is "qemu-system-x86 (pid 812) uses /vm/disk.vmdk".
func (h Holder) String() string {
	if h.PID == 0 {
		return "the kernel uses " + h.What
	}
	return fmt.Sprintf("%s (pid %d) uses %s", h.Name, h.PID, h.What)
}

// Holders finds who uses m, one entry for each process, by pid; processes that this
// user may not look into stay unseen. An empty answer means: not found, not free.
func Holders(m Mount) []Holder {
	holders := kernelHolders(m)
	procs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return holders
	}
	for _, dir := range procs {
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			continue
		}
		if what, ok := usedBy(m, dir); ok {
			holders = append(holders, Holder{PID: pid, Name: commandName(dir), What: what})
		}
	}
	slices.SortFunc(holders, func(a, b Holder) int { return cmp.Compare(a.PID, b.PID) })
	return holders
}

// usedBy tells if the process at /proc/PID uses m, and names one thing it uses.
func usedBy(m Mount, proc string) (string, bool) {
	for _, link := range []string{"cwd", "root"} {
		target, err := os.Readlink(filepath.Join(proc, link))
		if err == nil && Below(target, m.Mountpoint) && m.Mountpoint != "/" {
			return target, true
		}
	}
	if what, ok := openFile(m, proc); ok {
		return what, true
	}
	return mappedFile(m, proc)
}

// openFile looks for a descriptor on m. The mount's id stands in fdinfo, so no file is
// asked for its device.
func openFile(m Mount, proc string) (string, bool) {
	infos, err := os.ReadDir(filepath.Join(proc, "fdinfo"))
	if err != nil {
		return "", false
	}
	want := []byte(mountIDField + strconv.Itoa(m.ID) + "\n")
	for _, info := range infos {
		b, err := os.ReadFile(filepath.Join(proc, "fdinfo", info.Name()))
		if err != nil || !bytes.Contains(b, want) {
			continue
		}
		target, err := os.Readlink(filepath.Join(proc, "fd", info.Name()))
		if err != nil {
			target = m.Mountpoint
		}
		return target, true
	}
	return "", false
}

// mappedFile looks for a mapping of a file of m, whose descriptor may be closed.
func mappedFile(m Mount, proc string) (string, bool) {
	f, err := os.Open(filepath.Join(proc, "maps"))
	if err != nil {
		return "", false
	}
	defer f.Close()
	device := mapsDevice(m.Device)
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		// address perms offset device inode path, the path with its spaces
		fields := strings.Fields(lines.Text())
		if len(fields) < 6 || fields[3] != device {
			continue
		}
		_, path, _ := strings.Cut(lines.Text(), "/")
		return "/" + path, true
	}
	return "", false
}

// mapsDevice turns decimal "0:58" of mountinfo to hexadecimal "00:3a" of maps.
func mapsDevice(device string) string {
	var major, minor uint
	if _, err := fmt.Sscanf(device, "%d:%d", &major, &minor); err != nil {
		return ""
	}
	return fmt.Sprintf("%02x:%02x", major, minor)
}

// kernelHolders finds uses without a process: mounts below, loop devices, swap files.
func kernelHolders(m Mount) []Holder {
	var holders []Holder
	if all, err := List(); err == nil {
		for _, other := range all {
			if other.ID != m.ID && other.Mountpoint != m.Mountpoint && Below(other.Mountpoint, m.Mountpoint) {
				holders = append(holders, Holder{What: "mount " + other.Mountpoint})
			}
		}
	}
	loops, _ := filepath.Glob("/sys/block/loop*/loop/backing_file") // the pattern is well-formed
	for _, loop := range loops {
		b, err := os.ReadFile(loop)
		if err == nil && Below(strings.TrimSpace(string(b)), m.Mountpoint) {
			name := filepath.Base(filepath.Dir(filepath.Dir(loop)))
			holders = append(holders, Holder{What: "loop /dev/" + name})
		}
	}
	if b, err := os.ReadFile("/proc/swaps"); err == nil {
		for line := range strings.Lines(string(b)) {
			if path, _, ok := strings.Cut(line, " "); ok && strings.HasPrefix(path, "/") && Below(unescape(path), m.Mountpoint) {
				holders = append(holders, Holder{What: "swap " + unescape(path)})
			}
		}
	}
	return holders
}

// commandName is the process's name as ps shows it.
func commandName(proc string) string {
	b, err := os.ReadFile(filepath.Join(proc, "comm"))
	if err != nil {
		return "?"
	}
	return strings.TrimSpace(string(b))
}
