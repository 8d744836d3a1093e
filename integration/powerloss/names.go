package powerloss

import (
	"maps"
	"math/rand/v2"
	"slices"
)

// names are the directories: entries by name, of inode numbers.
type names map[uint64]map[string]uint64

func (n names) clone() names {
	c := make(names, len(n))
	for dir, entries := range n {
		c[dir] = maps.Clone(entries)
	}
	return c
}

// edit gives a name to an inode, or removes the name (ino 0).
type edit struct {
	dir  uint64
	name string
	ino  uint64
}

func (n names) apply(edits []edit) {
	for _, e := range edits {
		if n[e.dir] == nil {
			n[e.dir] = map[string]uint64{}
		}
		if e.ino == 0 {
			delete(n[e.dir], e.name)
		} else {
			n[e.dir][e.name] = e.ino
		}
	}
}

// change holds one system call's edits, which come to disk together.
type change struct {
	edits  []edit
	synced bool
}

func (c *change) touches(dirs map[uint64]bool) bool {
	return slices.ContainsFunc(c.edits, func(e edit) bool { return dirs[e.dir] })
}

// namespace holds the names seen by programs, the names on disk, and the changes between.
type namespace struct {
	now, disk names
	log       []*change
}

func newNamespace(n names) *namespace { return &namespace{now: n, disk: n.clone()} }

func (s *namespace) change(edits ...edit) {
	s.now.apply(edits)
	s.log = append(s.log, &change{edits: edits})
}

// sync brings a directory to disk: the directory's changes, and earlier changes in the other
// directories touched by them.
func (s *namespace) sync(dir uint64) {
	dirs := map[uint64]bool{dir: true}
	for _, c := range slices.Backward(s.log) {
		if c.touches(dirs) {
			c.synced = true
			for _, e := range c.edits {
				dirs[e.dir] = true
			}
		}
	}
}

func (s *namespace) syncAll() {
	for _, c := range s.log {
		c.synced = true
	}
}

// cut returns the names left by a power loss.
func (s *namespace) cut(rng *rand.Rand) names {
	left, lost := s.disk.clone(), map[uint64]bool{}
	keep := rng.Float64()
	for _, c := range s.log {
		if !c.synced && (c.touches(lost) || rng.Float64() >= keep) {
			for _, e := range c.edits {
				lost[e.dir] = true
			}
			continue
		}
		left.apply(c.edits)
	}
	return left
}

// links counts the names of each inode reached from dir, directories once.
func (n names) links(dir uint64, count map[uint64]uint32) {
	for _, ino := range n[dir] {
		count[ino]++
		if count[ino] == 1 {
			n.links(ino, count)
		}
	}
}
