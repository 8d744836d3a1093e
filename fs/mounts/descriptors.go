package mounts

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// openBy names one open file of process pid in the file system. fdinfo holds the id of a
// descriptor's mount, so openBy looks at files only for unlisted mounts: detached mounts of
// open_tree(2), and mounts unmounted lazily.
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
	for _, name := range names {
		target, err := os.Readlink(procPath(pid, "fd/"+name))
		switch {
		case err != nil:
		case target == "anon_inode:[io_uring]":
			if u != whatever {
				continue
			}
			if path, ok := s.registered(pid, name); ok {
				return path + " by io_uring", true
			}
		case strings.HasPrefix(target, "/"): // else a pipe, a socket
			if what, ok := s.openAs(pid, name, target, u); ok {
				return what, true
			}
		}
	}
	return "", false
}

// nowhere is the remark about an open file of an unlisted mount.
const nowhere = " of a mount of it that lies nowhere"

// openAs reports whether one descriptor, with the path target, is a use u of the file system, and
// names the use.
func (s *survey) openAs(pid int, name, target string, u use) (string, bool) {
	id, flags, err := descriptor(pid, name)
	if err != nil {
		return "", false
	}
	if s.copies[id] {
		return target, u == whatever || u == writing && keepsWritable(flags, target)
	}
	if s.listed[id] || u == writing && (flags&unix.O_PATH != 0 || !keepsWritable(flags, target)) || !s.unlisted(id, pid, "fd/"+name) {
		return "", false
	}
	if flags&unix.O_PATH != 0 {
		return "descriptor " + name + nowhere, true
	}
	return target + nowhere, true
}

// unlisted reports whether the unlisted mount id is one of the file system. link is a link in
// /proc of a process, into the mount.
func (s *survey) unlisted(id, pid int, link string) bool {
	is, known := s.asked[id]
	if !known {
		at, err := s.lookAt(procPath(pid, link))
		if is = err == nil && at.id == id && at.device == s.device; is || at.id == id {
			s.asked[id] = is
		}
	}
	return is
}

// keepsWritable reports whether a descriptor keeps the file system from becoming read-only.
func keepsWritable(flags int, target string) bool {
	return flags&unix.O_ACCMODE != unix.O_RDONLY || strings.HasSuffix(target, " (deleted)")
}

// mostInfo bounds, in bytes, the part read of a file in /proc. A process can make some of the
// files as long as the process likes.
const mostInfo = 8 << 20

// eachLine reads a file of /proc up to mostInfo, until f has enough.
func eachLine(path string, f func(line []byte) (enough bool)) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	lines := bufio.NewScanner(io.LimitReader(file, mostInfo))
	for lines.Scan() && !f(lines.Bytes()) {
	}
	return lines.Err()
}

// descriptor gives the mount's id and the flags of a descriptor, the first lines of fdinfo.
func descriptor(pid int, name string) (id, flags int, err error) {
	err = eachLine(procPath(pid, "fdinfo/"+name), func(line []byte) bool {
		if text, ok := bytes.CutPrefix(line, []byte("flags:\t")); ok {
			n, _ := strconv.ParseInt(string(text), 8, 64)
			flags = int(n)
		}
		text, ok := bytes.CutPrefix(line, []byte(mountIDField))
		if ok {
			id, _ = strconv.Atoi(string(text))
		}
		return ok
	})
	return id, flags, err
}

// registered names a file that an io_uring of the process holds. The descriptor of such a file may
// be closed. The kernel lists the files after "UserFiles:", as "    0: /vm/disk.img".
func (s *survey) registered(pid int, name string) (found string, ok bool) {
	_ = eachLine(procPath(pid, "fdinfo/"+name), func(line []byte) bool {
		number, path, isFile := strings.Cut(strings.TrimSpace(string(line)), ": /")
		if _, err := strconv.Atoi(number); !isFile || err != nil {
			return false
		}
		found = "/" + unescape(path)
		ok = s.leadsTo(pid, found)
		return ok
	})
	return found, ok
}

// deviceNumber converts a device like "0:58" of mountinfo to the number in stat(2), and any other
// text to 0.
func deviceNumber(device string) uint64 {
	var major, minor uint32
	if _, err := fmt.Sscanf(device, "%d:%d", &major, &minor); err != nil {
		return 0
	}
	return unix.Mkdev(major, minor)
}
