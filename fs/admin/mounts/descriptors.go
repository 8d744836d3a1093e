package mounts

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// openBy names something that the process has open of the file system. The mount's id stands in
// fdinfo, so no file is asked for its device. A mount that lies nowhere is one of open_tree(2) or
// fsmount(2).
func (s *survey) openBy(pid int, u use) (string, bool) {
	dir, err := os.Open(procPath(pid, "fd"))
	if err != nil {
		return "", false
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return "", false
	}
	asked := make(map[int]bool) // of mounts that are not listed: is it one of the file system?
	for _, name := range names {
		target, err := os.Readlink(procPath(pid, "fd/"+name))
		ring := err == nil && target == "anon_inode:[io_uring]"
		if err != nil || !ring && !strings.HasPrefix(target, "/") { // a pipe, a socket
			continue
		}
		info, err := os.ReadFile(procPath(pid, "fdinfo/"+name))
		if err != nil {
			continue
		}
		if ring {
			if path, ok := s.registered(pid, info); ok && u == whatever {
				return path + " by io_uring", true
			}
			continue
		}
		id, flags := infoNumber(info, mountIDField, 10), infoNumber(info, "flags:\t", 8)
		switch {
		case s.copies[id]:
			if u == whatever || u == detached && !s.listed[id] || u == writing && keepsWritable(flags, target) {
				return target, true
			}
		case !s.listed[id] && flags&unix.O_PATH != 0 && u != writing:
			is, known := asked[id]
			if !known {
				is = s.isOn(pid, name)
				asked[id] = is
			}
			if is {
				return "descriptor " + name + " of a mount of it that lies nowhere", true
			}
		}
	}
	return "", false
}

// keepsWritable tells of a descriptor if it keeps the file system from becoming read-only.
func keepsWritable(flags int, target string) bool {
	return flags&unix.O_ACCMODE != unix.O_RDONLY || strings.HasSuffix(target, " (deleted)")
}

// infoNumber is the number after field in fdinfo; 0 if it is not there.
func infoNumber(info []byte, field string, base int) int {
	for line := range bytes.Lines(info) {
		if text, ok := bytes.CutPrefix(line, []byte(field)); ok {
			n, _ := strconv.ParseInt(string(bytes.TrimSpace(text)), base, 64)
			return int(n)
		}
	}
	return 0
}

// isOn tells if a descriptor of another process, which is O_PATH, is on the file system. The
// kernel answers from what it knows: a copy of the descriptor leads there by no path, and closing
// it flushes nothing.
func (s *survey) isOn(pid int, name string) bool {
	number, err := strconv.Atoi(name)
	if err != nil {
		return false
	}
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return false
	}
	defer unix.Close(pidfd)
	fd, err := unix.PidfdGetfd(pidfd, number, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	var st unix.Statx_t
	err = unix.Statx(fd, "", unix.AT_EMPTY_PATH|unix.AT_STATX_DONT_SYNC, 0, &st)
	return err == nil && unix.Mkdev(st.Dev_major, st.Dev_minor) == s.device
}

// registered names a file that an io_uring of the process has, whose descriptor may be
// closed. The kernel lists them after "UserFiles:", as "    0: /vm/disk.img".
func (s *survey) registered(pid int, info []byte) (string, bool) {
	_, files, _ := bytes.Cut(info, []byte("\nUserFiles:"))
	for line := range bytes.Lines(files) {
		number, path, ok := strings.Cut(strings.TrimSpace(string(line)), ": /")
		if _, err := strconv.Atoi(number); !ok || err != nil {
			continue
		}
		if path = "/" + unescape(path); s.leadsTo(pid, path) {
			return path, true
		}
	}
	return "", false
}

// deviceNumber turns "0:58" of mountinfo to what stat(2) gives; 0 for what is no device.
func deviceNumber(device string) uint64 {
	var major, minor uint32
	if _, err := fmt.Sscanf(device, "%d:%d", &major, &minor); err != nil {
		return 0
	}
	return unix.Mkdev(major, minor)
}
