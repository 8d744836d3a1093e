package mounts

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
)

// survey is the search for users of a mount's file system. A file system may be mounted at several
// places in several namespaces, and lives as long as one mount is left.
type survey struct {
	m      Mount
	spaces []namespace
	of     map[int]string // namespace by process
	copies map[int]bool   // ids of all listed mounts of the file system; m itself may be gone
	listed map[int]bool   // ids of all mounts of all namespaces
	asked  map[int]bool   // by id of unlisted mounts: is the mount one of the file system?
	device uint64         // m's device number as in stat(2)
	hung   bool           // a server did not answer: no other is asked
}

func look(ctx context.Context, m Mount) (*survey, error) {
	s := &survey{m: m, copies: make(map[int]bool), listed: make(map[int]bool), asked: make(map[int]bool), device: deviceNumber(m.Device)}
	var err error
	if s.spaces, s.of, err = namespaces(ctx); err != nil {
		return nil, fmt.Errorf("look for who uses %s: %w", m.Mountpoint, err)
	}
	for i := range s.spaces {
		space := &s.spaces[i]
		space.tops = tops(space.all)
		for _, other := range space.all {
			s.listed[other.ID] = true
			if s.isCopy(other) {
				s.copies[other.ID] = true
			}
		}
	}
	return s, nil
}

// isCopy reports whether other shows the same file system.
func (s *survey) isCopy(other Mount) bool { return other.shows(s.m) }

// Holders finds the users of m's file system, at every place. Entries without a process come
// first, then one entry for each process, sorted by pid. Processes closed to this user are left
// out, so an empty answer is no proof of a free m. An error comes from reading /proc or from ctx.
func Holders(ctx context.Context, m Mount) ([]Holder, error) {
	s, err := look(ctx, m)
	if err != nil {
		return nil, err
	}
	users, err := s.users(ctx, whatever)
	if err != nil {
		return nil, err
	}
	mounted, err := s.mounted(ctx)
	if err != nil {
		return nil, err
	}
	return slices.Concat(s.kernelHolders(), mounted, users), nil
}

// Keepers finds the users that keep m's file system after an unmount of m: other mounts, in all
// namespaces, that stay when m goes; detached mounts that a process has open; and file systems
// stacked on m. m may be gone already. Limits and errors are those of Holders.
func Keepers(ctx context.Context, m Mount) ([]Holder, error) {
	s, err := look(ctx, m)
	if err != nil {
		return nil, err
	}
	trees, err := s.users(ctx, detached)
	if err != nil {
		return nil, err
	}
	mounted, err := s.mounted(ctx)
	return append(mounted, trees...), err
}

// mounted gives the mounts that keep the file system after an unmount of m.
func (s *survey) mounted(ctx context.Context) ([]Holder, error) {
	var copies []Mount
	for _, space := range s.spaces {
		for _, other := range space.all {
			if s.isCopy(other) && other.ID != s.m.ID {
				copies = append(copies, other)
			}
		}
	}
	goes := goesAlong(s.spaces, s.m, copies)
	var holders []Holder
	for i, space := range s.spaces {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		for _, other := range space.all {
			switch {
			case s.isCopy(other) && other.ID != s.m.ID && !goes[other.ID]:
				holders = append(holders, s.inSpace(i, other.Mountpoint, "bind mount "))
			case s.isStacked(space, other):
				holders = append(holders, s.inSpace(i, other.Mountpoint, other.Type+" mount "))
			}
		}
	}
	return holders, nil
}

// inSpace names a mount in the namespace of index i.
func (s *survey) inSpace(i int, path, what string) Holder {
	space := s.spaces[i]
	switch {
	case i == 0:
		return Holder{What: what + path}
	case space.pid == 0:
		return Holder{What: what + path + s.keptAt(space.id), Elsewhere: true}
	}
	return Holder{PID: space.pid, Name: space.name, What: path + " in a mount namespace of its own", Elsewhere: true}
}

// keptAt says where a namespace without a process is kept.
func (s *survey) keptAt(id string) string {
	for _, space := range s.spaces {
		for _, m := range space.all {
			if m.Type == "nsfs" && m.Root == id {
				return " in a mount namespace without a process, " + id + ", bound at " + m.Mountpoint
			}
		}
	}
	return " in a mount namespace without a process, " + id + ", which an open descriptor keeps"
}

// isStacked reports whether the file system of m is made of directories of s. Such a stacked file
// system keeps s without a descriptor or a listed mount.
func (s *survey) isStacked(space namespace, m Mount) bool {
	for _, path := range layers(m) {
		if below, ok := space.covering(path); ok && s.isCopy(below) {
			return true
		}
	}
	return false
}

// layers gives the directories of which a stacking file system is made.
func layers(m Mount) []string {
	switch m.Type {
	case "ecryptfs":
		return []string{m.Source}
	case "overlay":
		var dirs []string
		for _, option := range strings.Split(m.Super, ",") {
			name, value, _ := strings.Cut(option, "=")
			if slices.Contains([]string{"lowerdir", "lowerdir+", "datadir+", "upperdir", "workdir"}, name) {
				dirs = append(dirs, strings.Split(unescape(value), ":")...)
			}
		}
		return dirs
	}
	return nil
}

// use is a sort of use of a file system by a process.
type use int

const (
	whatever use = iota
	detached     // a file of a detached mount is open, or a file is mapped
	writing      // a file is open for writing, or a removed file is open
)

// users gives the processes that make use u of the file system.
func (s *survey) users(ctx context.Context, u use) ([]Holder, error) {
	pids, err := processes()
	if err != nil {
		return nil, err
	}
	var holders []Holder
	for _, pid := range pids {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		what, ok := s.openBy(pid, u)
		if !ok {
			what, ok = s.usedBy(pid, u)
		}
		if ok {
			holders = append(holders, Holder{PID: pid, Name: commandName(procPath(pid, "")), What: what})
		}
	}
	slices.SortFunc(holders, func(a, b Holder) int { return cmp.Compare(a.PID, b.PID) })
	return holders, nil
}
