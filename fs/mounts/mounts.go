// Package mounts lists the mounts of this host: where each vmcryptfs is mounted, and by whom a
// mount is used. The package also changes and ends mounts.
//
// The package asks /proc and the kernel, never the mounted file system, and so answers also for a
// mount whose daemon does not answer. Answers leave out processes and namespaces closed to this
// user.
//
// The package knows nothing of daemons, datastores and keys: BACKING is the source in the kernel's
// list. SplitOptions and EscapeOption read and write lists of mount options as mount(8) has them.
// All functions are safe for concurrent use.
package mounts

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// FSType is a vmcryptfs mount's type in /proc/self/mountinfo.
const FSType = "fuse.vmcryptfs"

// ErrNotMounted: no vmcryptfs is mounted there.
var ErrNotMounted = errors.New("no vmcryptfs is mounted here")

// Mount is one line of /proc/self/mountinfo (proc_pid_mountinfo(5)).
type Mount struct {
	ID         int
	Parent     int    // ID of the mount below
	Device     string // "major:minor" of the file system, both decimal
	Root       string // the mounted part of the file system; of a namespace "mnt:[4026531841]"
	Mountpoint string
	Options    string // of this mount alone: "rw,nosuid"
	Type       string
	Source     string // BACKING
	Super      string // options of the file system, in the words of the file system
	Shared     int    // peer group for sending and receiving mounts and unmounts; 0: none
	Master     int    // peer group for receiving alone; 0: none
}

// Is reports whether m and other are the same mount, listed at two times. The ID alone is not
// enough: the kernel may give the ID of an unmounted mount to the next mount at once.
func (m Mount) Is(other Mount) bool { return m.ID == other.ID && m.shows(other) }

// shows reports whether m shows the file system of other. The source counts too, since the kernel
// gives a free device number to another file system.
func (m Mount) shows(other Mount) bool {
	return m.Device == other.Device && m.Type == other.Type && m.Source == other.Source
}

// List gives all mounts that this process can see, in the order in which the mounts were made.
func List() ([]Mount, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return parse(f)
}

// Find gives the uppermost vmcryptfs mounted at path. Without one the error is ErrNotMounted. path
// may be relative. Find does not look into the mount at the last element of path, and so never
// waits for a daemon.
func Find(path string) (Mount, error) {
	abs, err := resolve(path)
	if err != nil {
		return Mount{}, err
	}
	all, err := List()
	if err != nil {
		return Mount{}, err
	}
	m, ok := uppermost(all, abs)
	switch {
	case !ok:
		return Mount{}, fmt.Errorf("%s: %w", abs, ErrNotMounted)
	case m.Type != FSType:
		return Mount{}, fmt.Errorf("%s is a mount of type %s: %w", abs, m.Type, ErrNotMounted)
	}
	return m, nil
}

// All gives every vmcryptfs mount, sorted by mountpoint, without mounts covered by another mount
// at the same place.
func All() ([]Mount, error) {
	all, err := List()
	if err != nil {
		return nil, err
	}
	var ours []Mount
	for _, m := range all {
		if top, _ := uppermost(all, m.Mountpoint); m.Type == FSType && top.ID == m.ID {
			ours = append(ours, m)
		}
	}
	slices.SortFunc(ours, func(a, b Mount) int { return cmp.Compare(a.Mountpoint, b.Mountpoint) })
	return ours, nil
}

// IDOf gives the ID of the mount on which the descriptor fd is open, without asking the mounted
// file system.
func IDOf(fd int) (int, error) {
	info, err := os.ReadFile("/proc/self/fdinfo/" + strconv.Itoa(fd))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(info)) {
		if id, ok := strings.CutPrefix(line, mountIDField); ok {
			return strconv.Atoi(strings.TrimSpace(id))
		}
	}
	return 0, errors.New("fdinfo: no mount id")
}

// mountIDField begins the line of fdinfo with the mount ID of a descriptor.
const mountIDField = "mnt_id:\t"

// uppermost gives the mount at path that covers all others there. The order of the list is no
// guide: a mount that takes the place of a dead one is made later, and lies beneath.
func uppermost(all []Mount, path string) (top Mount, ok bool) {
	covered := make(map[int]bool)
	for _, m := range all {
		if m.Mountpoint == path {
			covered[m.Parent] = true
		}
	}
	for _, m := range all {
		if m.Mountpoint == path && !covered[m.ID] {
			top, ok = m, true
		}
	}
	return top, ok
}

// tops gives the uppermost mount of each mountpoint.
func tops(all []Mount) map[string]Mount {
	points := make(map[int]string, len(all))
	for _, m := range all {
		points[m.ID] = m.Mountpoint
	}
	covered := make(map[int]bool)
	for _, m := range all {
		if under, ok := points[m.Parent]; ok && under == m.Mountpoint {
			covered[m.Parent] = true
		}
	}
	top := make(map[string]Mount, len(all))
	for _, m := range all {
		if !covered[m.ID] {
			top[m.Mountpoint] = m
		}
	}
	return top
}

// covering gives the mount into which the absolute path leads.
func covering(all []Mount, path string) (m Mount, ok bool) {
	longest := ""
	for _, m := range all {
		if Below(path, m.Mountpoint) && len(m.Mountpoint) > len(longest) {
			longest = m.Mountpoint
		}
	}
	return uppermost(all, longest)
}

// removed ends the kernel's name of a directory or file that has been removed. No clean path ends
// so.
const removed = "//deleted"

// Backing translates a path below a vmcryptfs mount to the path below BACKING. The mount may be a
// bind mount of a part. For every other path, backing is path and ok is false.
func Backing(path string) (backing string, ok bool, err error) {
	m, abs, err := Above(path)
	if errors.Is(err, ErrNotMounted) {
		return path, false, nil
	}
	if err != nil {
		return "", false, err
	}
	if strings.HasSuffix(m.Root, removed) {
		return "", false, fmt.Errorf("%s: what is mounted at %s was removed: %w; unmount it", path, m.Mountpoint, unix.ENOENT)
	}
	return filepath.Join(m.Source, m.Root, strings.TrimPrefix(abs, m.Mountpoint)), true, nil
}

// Above gives the vmcryptfs mount into which path leads, and path without symbolic links. Without
// such a mount the error is ErrNotMounted. Where a dead mount keeps links from being followed, abs
// is path made absolute.
func Above(path string) (m Mount, abs string, err error) {
	abs, err = resolve(path)
	if errors.Is(err, unix.ENOTCONN) {
		abs, err = filepath.Abs(path)
	}
	if err != nil {
		return Mount{}, "", err
	}
	all, err := List()
	if err != nil {
		return Mount{}, "", err
	}
	if m, _ = covering(all, abs); m.Type != FSType {
		return Mount{}, abs, fmt.Errorf("%s: %w", abs, ErrNotMounted)
	}
	return m, abs, nil
}

// Of gives the vmcryptfs mounts of the BACKING to which, or into which, path leads. Mounts of the
// whole come before bind mounts of a part. An empty list is no error.
func Of(path string) ([]Mount, error) {
	abs, err := resolve(path)
	if err != nil {
		return nil, err
	}
	all, err := List()
	if err != nil {
		return nil, err
	}
	var found []Mount
	for _, m := range all {
		if m.Type == FSType && Below(abs, m.Source) {
			found = append(found, m)
		}
	}
	slices.SortStableFunc(found, func(a, b Mount) int { return cmp.Compare(len(a.Root), len(b.Root)) })
	return found, nil
}

// Owner is the user who mounted m, as the kernel tells. The same user chose m.Source.
func (m Mount) Owner() (uid int, ok bool) {
	for option := range strings.SplitSeq(m.Super, ",") {
		if value, found := strings.CutPrefix(option, "user_id="); found {
			uid, err := strconv.Atoi(value)
			return uid, err == nil
		}
	}
	return 0, false
}

// mostLinks bounds the symbolic links through which the last element of a path may lead, as in
// Linux.
const mostLinks = 40

// resolve makes path absolute and follows the symbolic links on the way. The file at the end is
// asked only for being a link, since a dead mount may be there.
func resolve(path string) (string, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	for range mostLinks {
		dir, name := filepath.Split(path)
		if dir, err = filepath.EvalSymlinks(dir); err != nil {
			return "", err
		}
		path = filepath.Join(dir, name)
		target, err := os.Readlink(path) // at a mountpoint readlink asks only the parent
		if err != nil {
			return path, nil
		}
		// The target is cleaned only after its directories are followed: a link may come before a
		// "..".
		if path = strings.TrimRight(target, "/"); !filepath.IsAbs(target) {
			path = dir + "/" + path
		}
		if name := path[strings.LastIndexByte(path, '/')+1:]; name == "" || name == "." || name == ".." {
			return filepath.EvalSymlinks(path + "/")
		}
	}
	return "", &os.PathError{Op: "resolve", Path: path, Err: unix.ELOOP}
}

// Below reports whether path is dir or lies under dir. Both are absolute and clean.
func Below(path, dir string) bool {
	return path == dir || dir == "/" || strings.HasPrefix(path, dir+"/")
}

// mostLine is a bound for a line of mountinfo. overlayfs lists up to 500 layers, and the kernel
// escapes a character of a path by four.
const mostLine = 16 << 20

// parse reads mountinfo. A line with an unknown form is an error: a mountpoint could otherwise be
// taken for free.
func parse(r io.Reader) ([]Mount, error) {
	var all []Mount
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, mostLine)
	for lines.Scan() {
		before, after, ok := strings.Cut(lines.Text(), " - ")
		// Only spaces separate fields. The kernel escapes spaces in paths, but not the other white
		// space at which strings.Fields would split. The source may be empty.
		head, tail := strings.Split(before, " "), strings.Split(after, " ")
		if !ok || len(head) < 6 || len(tail) < 3 {
			return nil, fmt.Errorf("mountinfo: line %q is not understood", lines.Text())
		}
		id, err := strconv.Atoi(head[0])
		parent, parentErr := strconv.Atoi(head[1])
		if err = errors.Join(err, parentErr); err != nil {
			return nil, fmt.Errorf("mountinfo: mount id: %w", err)
		}
		all = append(all, Mount{
			ID:         id,
			Parent:     parent,
			Device:     head[2],
			Root:       unescape(head[3]),
			Mountpoint: unescape(head[4]),
			Options:    head[5],
			Type:       tail[0],
			Source:     unescape(tail[1]),
			Super:      tail[2],
			Shared:     peerGroup(head[6:], "shared:"),
			Master:     peerGroup(head[6:], "master:"),
		})
	}
	return all, lines.Err()
}

// peerGroup gives the number in the field of mountinfo with the given prefix, or 0 without such a
// field.
func peerGroup(fields []string, prefix string) int {
	for _, field := range fields {
		if number, ok := strings.CutPrefix(field, prefix); ok {
			if group, err := strconv.Atoi(number); err == nil {
				return group
			}
		}
	}
	return 0
}

// unescape undoes the kernel's octal escapes (\040 for a space).
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
