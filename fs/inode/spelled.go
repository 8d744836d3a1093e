package inode

import (
	"context"
	"path"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"vmcryptfs/fs/backing"
	"vmcryptfs/layout"
)

// spelled remembers all paths of files with several names. Each walk of BACKING for the names takes
// time, and of a file with a name outside of BACKING a walk never finds as many names as links. A
// name that a file gets or loses changes the file's ctime. A caller checks that each remembered
// path still leads to the file, for a directory on the way may have been renamed.
type spelled struct {
	mu    sync.Mutex // a leaf
	of    map[backing.Key]spelling
	count int // of paths
}

// spelling is all paths below BACKING of a file, valid for one nlink and ctime of the file.
type spelling struct {
	nlink uint64
	ctime unix.Timespec
	paths []string
}

// RememberedPaths gives all paths below BACKING of the file of st, if a walk found the paths since
// the file's names last changed.
func (t *Table) RememberedPaths(st *unix.Stat_t) (paths []string, known bool) {
	s := &t.finder.spelled
	s.mu.Lock()
	defer s.mu.Unlock()
	found, known := s.of[backing.KeyOf(st)]
	return found.paths, known && found.nlink == uint64(st.Nlink) && found.ctime == st.Ctim
}

// Dated reports whether a later change of the file's names will have another ctime than st, which
// was just read: BACKING may count time in steps of some milliseconds.
func Dated(st *unix.Stat_t) bool { return time.Since(time.Unix(st.Ctim.Unix())) >= CacheTime }

// RememberPaths remembers the paths of the file of st. The caller read st before the walk that
// found the paths, and Dated(st) was true.
func (t *Table) RememberPaths(st *unix.Stat_t, paths []string) {
	s := &t.finder.spelled
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.of == nil || s.count+len(paths) > mostPlaces {
		s.of, s.count = make(map[backing.Key]spelling), 0
	}
	s.count += 1 + len(paths) - s.cost(backing.KeyOf(st))
	s.of[backing.KeyOf(st)] = spelling{uint64(st.Nlink), st.Ctim, paths}
}

// cost is a file's part in count.
func (s *spelled) cost(key backing.Key) int {
	if known, ok := s.of[key]; ok {
		return 1 + len(known.paths)
	}
	return 0
}

// SeekPaths walks BACKING for all paths of the inode key.
func (t *Table) SeekPaths(ctx context.Context, key backing.Key) (paths []string, err error) {
	w := backing.Walk{Root: t.Root().fd, Visit: func(_ int, at string, e *backing.Entry) error {
		if e.Key() == key && !layout.Reserved(path.Base(at)) {
			paths = append(paths, at)
		}
		return nil
	}}
	err = w.All(ctx)
	return paths, err
}
