package mounts

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Holder is one user of a mount. A Holder keeps the mount from being unmounted, or its file system
// from ending.
type Holder struct {
	PID  int    // 0: the kernel itself is the user of What
	Name string // command name
	What string // a path below the mount, or "mount /a/b", "bind mount /a/b", "loop /dev/loop0", "swap /a/b"
	// Elsewhere marks a mount in another mount namespace, without a known user.
	Elsewhere bool
}

// String is "qemu-system-x86 (pid 812) uses /vm/disk.vmdk".
func (h Holder) String() string {
	if h.PID == 0 {
		return "the kernel uses " + h.What
	}
	return fmt.Sprintf("%s (pid %d) uses %s", h.Name, h.PID, h.What)
}

// usedBy reports whether process pid makes use u of the file system without a descriptor, and
// names one file or directory in use.
func (s *survey) usedBy(pid int, u use) (string, bool) {
	if u == writing {
		return s.mappedBy(pid, u)
	}
	for _, link := range []string{"cwd", "root"} {
		target, err := os.Readlink(procPath(pid, link))
		if err != nil {
			continue
		}
		if u == whatever && s.leadsTo(pid, target) {
			return target, true
		}
		// A path in a detached mount begins at the root of the mount, and may be another file in
		// the namespace.
		if at, err := s.lookAt(procPath(pid, link)); err == nil && at.device == s.device && !s.listed[at.id] {
			return target + nowhere, true
		}
	}
	return s.mappedBy(pid, u)
}

// leadsTo reports whether path leads process pid into the file system. The answer comes from the
// list of mounts alone: opening the path could block at a server.
func (s *survey) leadsTo(pid int, path string) bool {
	for i := range s.spaces {
		if s.spaces[i].id == s.of[pid] {
			m, ok := s.spaces[i].covering(path)
			return ok && s.isCopy(m)
		}
	}
	return false
}

// mappedBy looks for a mapping of a file, whose descriptor may be closed.
func (s *survey) mappedBy(pid int, u use) (path string, ok bool) {
	device := mapsDevice(s.m.Device)
	_ = eachLine(procPath(pid, "maps"), func(line []byte) bool {
		// Fields: address, perms, offset, device, inode, path. A path may have spaces.
		fields := bytes.Fields(line)
		if len(fields) < 6 || string(fields[3]) != device || u == writing && string(fields[1]) != "rw-s" {
			return false
		}
		var rest []byte
		_, rest, ok = bytes.Cut(line, []byte("/"))
		path = "/" + string(rest)
		return ok
	})
	return path, ok
}

// mapsDevice turns decimal "0:58" of mountinfo to hexadecimal "00:3a" of maps.
func mapsDevice(device string) string {
	n := deviceNumber(device)
	return fmt.Sprintf("%02x:%02x", unix.Major(n), unix.Minor(n))
}

// kernelHolders finds uses of a mount here without a process: mounts below, loop devices, swap
// files, exports of the NFS server.
func (s *survey) kernelHolders() []Holder {
	own := s.spaces[0].all
	uses := func(path string) bool {
		m, ok := s.spaces[0].covering(path)
		return ok && s.isCopy(m)
	}
	var holders []Holder
	for _, other := range own {
		if s.copies[other.Parent] && !s.copies[other.ID] {
			holders = append(holders, Holder{What: "mount " + other.Mountpoint})
		}
	}
	loops, _ := filepath.Glob("/sys/block/loop*/loop/backing_file") // the pattern is well-formed
	for _, loop := range loops {
		b, err := os.ReadFile(loop)
		if err == nil && uses(strings.TrimSuffix(string(b), "\n")) {
			name := filepath.Base(filepath.Dir(filepath.Dir(loop)))
			holders = append(holders, Holder{What: "loop /dev/" + name})
		}
	}
	for _, list := range []struct{ file, what, end string }{
		{"/proc/swaps", "swap ", " "},
		{"/proc/fs/nfs/exports", "NFS export ", "\t"},
	} {
		b, _ := os.ReadFile(list.file) // there is none where nothing is
		for line := range strings.Lines(string(b)) {
			path, _, ok := strings.Cut(line, list.end)
			if path = unescape(path); ok && strings.HasPrefix(path, "/") && uses(path) {
				holders = append(holders, Holder{What: list.what + path})
			}
		}
	}
	return holders
}

// commandName is the process's name as in ps.
func commandName(proc string) string {
	b, err := os.ReadFile(filepath.Join(proc, "comm"))
	if err != nil {
		return "?"
	}
	return strings.TrimSpace(string(b))
}
