package inode

import (
	"errors"
	"os"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"vmcryptfs/fs/backing"
)

// keyAt is the identity of the file at a path in BACKING.
func (s *site) keyAt(at string) backing.Key {
	s.t.Helper()
	var st unix.Stat_t
	s.do(unix.Lstat(s.path(at), &st))
	return backing.KeyOf(&st)
}

// TestFind: an inode is first looked for at the remembered path; then BACKING is walked.
func TestFind(t *testing.T) {
	s := newSite(t)
	s.do(os.MkdirAll(s.path("d/e"), 0o755))
	s.plant("d/e/a")
	key := s.keyAt("d/e/a")
	open := func(path string) (int, error) {
		if _, err := os.Lstat(s.path(path)); err != nil || s.keyAt(path) != key {
			return -1, unix.ESTALE
		}
		return 7, nil
	}
	var asked []string
	for _, tt := range []struct {
		what   string
		before func() error
		open   func(path string) (int, error)
		asked  string
		walks  uint64 // so far
		want   error
	}{
		{"not seen yet", func() error { return nil }, open, "d/e/a", 1, nil},
		{"seen there", func() error { return nil }, open, "d/e/a", 1, nil},
		{"renamed", func() error { return os.Rename(s.path("d/e/a"), s.path("b")) }, open, "d/e/a b", 2, nil},
		{"another error", func() error { return os.Rename(s.path("b"), s.path("c")) },
			func(string) (int, error) { return -1, unix.EIO }, "b", 2, unix.EIO},
		{"reserved name", func() error { return os.Rename(s.path("c"), s.path(".vmcryptfs-c")) }, open, "b", 3, unix.ESTALE},
		{"gone", func() error { return os.Remove(s.path(".vmcryptfs-c")) }, open, "", 4, unix.ESTALE},
	} {
		s.do(tt.before())
		asked = nil
		fd, err := s.tab.Find(key, func(path string) (int, error) {
			asked = append(asked, path)
			return tt.open(path)
		})
		if err != tt.want || (err == nil) != (fd == 7) {
			t.Errorf("%s: %d, %v; want %v", tt.what, fd, err, tt.want)
		}
		if got := strings.Join(asked, " "); got != tt.asked {
			t.Errorf("%s: tried %q, want %q", tt.what, got, tt.asked)
		}
		if got := s.tab.finder.walks.Load(); got != tt.walks {
			t.Errorf("%s: %d walks so far, want %d", tt.what, got, tt.walks)
		}
	}
}

// TestOneWalk serves all waiting goroutines, with the paths found, or with the error of a walk that
// did not see all.
func TestOneWalk(t *testing.T) {
	s := newSite(t)
	s.plant("a")
	for _, tt := range []struct {
		what string
		root int
		path string
		want error
	}{
		{"BACKING", s.tab.Root().fd, "a", nil},
		{"what cannot be read", -1, "", unix.EBADF},
	} {
		var p finder
		p.mu.Lock()
		const waiting = 8
		type answer struct {
			path string
			err  error
		}
		answers := make(chan answer, waiting)
		for range waiting {
			go func() {
				path, err := p.seek(tt.root, s.keyAt("a"))
				answers <- answer{path, err}
			}()
		}
		for waitingForWalk() < waiting {
			runtime.Gosched()
		}
		p.mu.Unlock()
		for range waiting {
			if got := <-answers; got.path != tt.path || !errors.Is(got.err, tt.want) {
				t.Errorf("walk of %s: %q, %v; want %q, %v", tt.what, got.path, got.err, tt.path, tt.want)
			}
		}
		if got := p.walks.Load(); got != 1 {
			t.Errorf("walk of %s: %d walks for %d who wait", tt.what, got, waiting)
		}
		if _, err := p.seek(tt.root, s.keyAt("a")); !errors.Is(err, tt.want) || p.walks.Load() != 2 {
			t.Errorf("walk of %s: who comes later has %v, after %d walks", tt.what, err, p.walks.Load())
		}
	}
}

// waitingForWalk is the number of goroutines that wait for the lock in finder.seek.
func waitingForWalk() (n int) {
	all := make([]byte, 1<<20)
	for _, g := range strings.Split(string(all[:runtime.Stack(all, true)]), "\n\n") {
		if strings.Contains(g, "(*finder).seek") && strings.Contains(g, "Mutex).Lock") {
			n++
		}
	}
	return n
}
