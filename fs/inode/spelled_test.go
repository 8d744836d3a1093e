package inode

import (
	"context"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vmcryptfs/fs/backing"
)

// TestSeekPaths: a walk finds all paths of a file, but for reserved names, and ends with its
// context.
func TestSeekPaths(t *testing.T) {
	s := newSite(t)
	s.do(os.MkdirAll(s.path("d/e"), 0o755))
	s.plant("a")
	s.plant("other")
	for _, at := range []string{"d/b", "d/e/c", ".vmcryptfs-0-temp"} {
		s.do(os.Link(s.path("a"), s.path(at)))
	}
	paths, err := s.tab.SeekPaths(context.Background(), s.keyAt("a"))
	slices.Sort(paths)
	if got := strings.Join(paths, " "); got != "a d/b d/e/c" || err != nil {
		t.Errorf("%s, %v", got, err)
	}
	if paths, err := s.tab.SeekPaths(context.Background(), backing.Key{}); len(paths) > 0 || err != nil {
		t.Errorf("paths of no file: %v, %v", paths, err)
	}
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := s.tab.SeekPaths(ended, s.keyAt("a")); err != context.Canceled {
		t.Errorf("a walk that was called off: %v", err)
	}
}

// TestRememberedPaths: the paths found for a file are known as long as no name of the file came or
// went.
func TestRememberedPaths(t *testing.T) {
	st := unix.Stat_t{Dev: 1, Ino: 2, Nlink: 3, Ctim: unix.Timespec{Sec: 4, Nsec: 5}}
	for what, tt := range map[string]struct {
		change func(st *unix.Stat_t)
		known  bool
	}{
		"as it was":         {func(*unix.Stat_t) {}, true},
		"written":           {func(st *unix.Stat_t) { st.Size, st.Mtim.Sec = 1, 9 }, true},
		"a name more":       {func(st *unix.Stat_t) { st.Nlink++ }, false},
		"names exchanged":   {func(st *unix.Stat_t) { st.Ctim.Nsec++ }, false},
		"another file":      {func(st *unix.Stat_t) { st.Ino++ }, false},
		"of another device": {func(st *unix.Stat_t) { st.Dev++ }, false},
	} {
		var tab Table
		if _, known := tab.RememberedPaths(&st); known {
			t.Error("paths are known that nobody found")
		}
		tab.RememberPaths(&st, []string{"a", "d/b"})
		now := st
		tt.change(&now)
		paths, known := tab.RememberedPaths(&now)
		if known != tt.known || known && strings.Join(paths, " ") != "a d/b" {
			t.Errorf("%s: %v, known %t, want %t", what, paths, known, tt.known)
		}
	}
}

// TestRememberedPathsAreBounded: when there is no room for more, all paths are forgotten. The paths
// of a file found anew take the place of the old ones.
func TestRememberedPathsAreBounded(t *testing.T) {
	var tab Table
	st := func(ino uint64) *unix.Stat_t { return &unix.Stat_t{Ino: ino} }
	known := func(ino uint64) bool { _, known := tab.RememberedPaths(st(ino)); return known }
	half := make([]string, mostPlaces/2-1)
	tab.RememberPaths(st(1), half)
	for range 5 {
		tab.RememberPaths(st(2), half[:10])
	}
	if got := tab.finder.spelled.count; got != 1+len(half)+11 {
		t.Errorf("%d paths are counted", got)
	}
	tab.RememberPaths(st(3), half[:len(half)-12])
	if !known(1) || !known(2) || !known(3) {
		t.Error("a file is forgotten while there is room")
	}
	tab.RememberPaths(st(4), half[:1])
	tab.RememberPaths(st(5), half[:10])
	if known(1) || known(2) || !known(5) || tab.finder.spelled.count > mostPlaces {
		t.Errorf("more is remembered than there is room for: %d", tab.finder.spelled.count)
	}
}

// TestDated: the names of a file changed a moment ago may change again at the same ctime.
func TestDated(t *testing.T) {
	for since, want := range map[time.Duration]bool{time.Hour: true, CacheTime: true, -time.Hour: false} {
		st := unix.Stat_t{Ctim: unix.NsecToTimespec(time.Now().Add(-since).UnixNano())}
		if got := Dated(&st); got != want {
			t.Errorf("changed %v ago: %t", since, got)
		}
	}
}
