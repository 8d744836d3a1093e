package mounts

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
)

// survey is what was found of a mount's file system: it may be mounted at several places, in
// several namespaces, and lives as long as one of them is there.
type survey struct {
	m      Mount
	spaces []namespace
	of     map[int]string // namespace by process
	copies map[int]bool   // ids of all its mounts that are listed; m may be none of them any more
	listed map[int]bool   // ids of all mounts of all namespaces
	asked  map[int]bool   // by id of mounts that are not listed: is it one of the file system?
	device uint64         // m's, as stat(2) has it
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

// isCopy tells of another mount if it shows the same file system.
func (s *survey) isCopy(other Mount) bool { return other.shows(s.m) }

// Holders finds who uses m's file system, at whatever place: one entry for each process, by pid,
// after what holds it without one. Processes that this user may not look into stay unseen. An
// empty answer means: not found, not free. An error is of /proc, or ctx's.
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

// Keepers finds what keeps m's file system once m is unmounted: its mounts elsewhere that do not
// go with m, in this namespace and in all others, those that lie nowhere and that a process has
// open, and file systems that are stacked on it. It is like Holders else. m may be gone.
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

// mounted are the mounts that keep the file system when m goes.
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

// isStacked tells of a mount if its file system is made of files of s, which it keeps without
// a descriptor or a mount that is listed.
func (s *survey) isStacked(space namespace, m Mount) bool {
	for _, path := range layers(m) {
		if below, ok := space.covering(path); ok && s.isCopy(below) {
			return true
		}
	}
	return false
}

// layers are the directories that a stacking file system is made of.
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
	detached     // something of it is open in a mount that lies nowhere, or is mapped
	writing      // a file is open for writing, or that is removed
)

// users are the processes that use the file system so.
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
