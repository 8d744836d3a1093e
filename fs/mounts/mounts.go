// Package mounts is what the kernel knows of the mounts of this host: which vmcryptfs lies
// where, who uses it, and how to change or end it.
//
// The package asks /proc and the kernel, never the mounted file system, so it answers also
// where a daemon does not. What this user may not look into, a process or a namespace, is
// left out of an answer.
//
// The package knows nothing of daemons, datastores and keys: BACKING is the source that the
// kernel shows. It also reads and writes lists of mount options as mount(8) has them. All
// functions are safe for concurrent use.
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
	Parent     int    // ID of the mount that it lies on
	Device     string // "major:minor" of the file system, both decimal
	Root       string // what of the file system lies here; "mnt:[4026531841]" of a namespace
	Mountpoint string
	Options    string // of this mount alone: "rw,nosuid"
	Type       string
	Source     string // BACKING
	Super      string // options of the file system, as it shows them
	Shared     int    // peer group that it sends mounts and unmounts to and has them from; 0: none
	Master     int    // peer group that it has them from alone; 0: none
}

// Is reports whether m is other, as it is listed at another time. The kernel gives the ID of a mount that is
// gone to the next one at once.
func (m Mount) Is(other Mount) bool { return m.ID == other.ID && m.shows(other) }

// shows reports whether m shows the file system of other. Its source counts, too: once that is gone its
// device number is free for another one.
func (m Mount) shows(other Mount) bool {
	return m.Device == other.Device && m.Type == other.Type && m.Source == other.Source
}

// List gives all mounts that this process sees, in the order they were made.
func List() ([]Mount, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return parse(f)
}

// Find gives the vmcryptfs mounted at path, the uppermost if there are several:
// ErrNotMounted. path need not be absolute; its last element is not followed into the
// mount, which might hang.
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

// All gives every vmcryptfs mount that no other mount at its place covers, by mountpoint.
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

// IDOf gives the ID of the mount that the descriptor fd is open on. The mounted file system is
// not asked.
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

// mountIDField begins the line of fdinfo that tells the mount of a descriptor.
const mountIDField = "mnt_id:\t"

// uppermost gives the mount at the path that covers the others there. The order of the list
// does not tell: a mount that takes the place of a dead one is made later, and lies beneath.
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

// tops gives what uppermost does for each mountpoint.
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

// covering gives the mount that the absolute path leads into.
func covering(all []Mount, path string) (m Mount, ok bool) {
	longest := ""
	for _, m := range all {
		if Below(path, m.Mountpoint) && len(m.Mountpoint) > len(longest) {
			longest = m.Mountpoint
		}
	}
	return uppermost(all, longest)
}

// removed ends the kernel's name of a directory or file that has none any more, as no path does.
const removed = "//deleted"

// Backing translates a path below a vmcryptfs mount, or below a bind mount of a part of one,
// to the path below its BACKING; other paths come back as they are, ok false.
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

// Above gives the vmcryptfs mount that path leads into, and path without links: ErrNotMounted.
// Where a dead mount keeps links from being followed, path is taken as it is.
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

// Of gives the vmcryptfs mounts of the BACKING that path leads to, or into, whole ones before
// bind mounts of a part; none is no error.
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

// Owner is the user who mounted m, by the kernel: whoever it is also chose m.Source.
func (m Mount) Owner() (uid int, ok bool) {
	for option := range strings.SplitSeq(m.Super, ",") {
		if value, found := strings.CutPrefix(option, "user_id="); found {
			uid, err := strconv.Atoi(value)
			return uid, err == nil
		}
	}
	return 0, false
}

// mostLinks bounds the symbolic links that a path's last element may lead through, as Linux
// does.
const mostLinks = 40

// resolve makes path absolute and follows the symbolic links on the way to it. What lies at
// its end is not asked, but for being a link: it may be a dead mount.
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
		target, err := os.Readlink(path) // of a mountpoint it asks the parent only
		if err != nil {
			return path, nil
		}
		// Not cleaned before its directories are followed: one may be a link with ".." after it.
		if path = strings.TrimRight(target, "/"); !filepath.IsAbs(target) {
			path = dir + "/" + path
		}
		if name := path[strings.LastIndexByte(path, '/')+1:]; name == "" || name == "." || name == ".." {
			return filepath.EvalSymlinks(path + "/")
		}
	}
	return "", &os.PathError{Op: "resolve", Path: path, Err: unix.ELOOP}
}

// Below reports whether path is dir or lies under it. Both are absolute and clean.
func Below(path, dir string) bool {
	return path == dir || dir == "/" || strings.HasPrefix(path, dir+"/")
}

// mostLine is more than a line may have: overlayfs lists its layers, 500 at most, whose paths the
// kernel escapes by four characters for one.
const mostLine = 16 << 20

// parse reads mountinfo. A line it does not understand is an error: a mount that is
// not seen might be taken for free.
func parse(r io.Reader) ([]Mount, error) {
	var all []Mount
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, mostLine)
	for lines.Scan() {
		before, after, ok := strings.Cut(lines.Text(), " - ")
		// Spaces alone part the fields: the kernel escapes those of a path, but no other
		// white space that Fields would split at. The source may be empty.
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

// peerGroup gives the number of the field of mountinfo that begins with prefix; 0 if there is
// none.
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
