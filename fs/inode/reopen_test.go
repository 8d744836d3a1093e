package inode

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"vmcryptfs/integration/leak"
)

// TestReopen: an inode whose descriptor was given up is opened by a name that leads to the inode,
// or where a walk of BACKING finds the inode. No other inode is taken for the former.
func TestReopen(t *testing.T) {
	for _, tt := range []struct {
		what   string
		change func(s *site) error
		want   error
		walks  uint64
	}{
		{"as known", func(*site) error { return nil }, nil, 0},
		{"another known name", func(s *site) error { return os.Remove(s.path("d/a")) }, nil, 0},
		{"renamed by other hands", func(s *site) error {
			s.do(os.Remove(s.path("b")), os.Mkdir(s.path("d/e"), 0o755))
			return os.Rename(s.path("d/a"), s.path("d/e/c"))
		}, nil, 1},
		{"the directory renamed", func(s *site) error {
			s.do(os.Remove(s.path("b")))
			return os.Rename(s.path("d"), s.path("e"))
		}, nil, 1}, // one walk finds both
		{"another inode under each name", func(s *site) error {
			s.plant("x")
			s.do(os.Link(s.path("x"), s.path("y")), os.Rename(s.path("x"), s.path("b")))
			return os.Rename(s.path("y"), s.path("d/a"))
		}, unix.ESTALE, 1},
		{"a link to the inode under its name", func(s *site) error {
			s.do(os.Remove(s.path("b")), os.Rename(s.path("d/a"), filepath.Join(s.t.TempDir(), "outside")))
			return os.Symlink("outside", s.path("b"))
		}, unix.ESTALE, 1},
		{"a directory on the way gone", func(s *site) error {
			s.do(os.Remove(s.path("b")))
			return os.RemoveAll(s.path("d"))
		}, unix.ESTALE, 2}, // of the directory, and of the file
		{"a directory on the way is a file", func(s *site) error {
			s.do(os.Remove(s.path("b")), os.RemoveAll(s.path("d")))
			return os.WriteFile(s.path("d"), nil, 0o644)
		}, unix.ESTALE, 2},
		{"a name that is no more, and one given to others", func(s *site) error {
			s.do(os.Remove(s.path("b")), os.Rename(s.path("d/a"), s.path("d/b")))
			s.plant("d/a")
			return nil
		}, nil, 1},
		{"a reserved name", func(s *site) error {
			s.do(os.Remove(s.path("b")))
			return os.Rename(s.path("d/a"), s.path(".vmcryptfs-a"))
		}, unix.ESTALE, 1},
	} {
		t.Run(tt.what, func(t *testing.T) {
			s := newSite(t)
			s.mkdir("d")
			n := s.file("d/a")
			s.do(os.Link(s.path("d/a"), s.path("b")))
			if s.lookup("b") != n {
				t.Fatal("the second name is another inode's")
			}
			s.tab.LimitIdle(0)
			if n.isOpen() || n.names[0].Dir.isOpen() {
				t.Fatal("a descriptor is open: nothing is tested")
			}
			s.do(tt.change(s))
			before := leak.Descriptors(t)
			err := n.Pin()
			if err != tt.want {
				t.Errorf("pin: %v, want %v", err, tt.want)
			}
			if err == nil {
				if !n.isInode(n.FD()) {
					t.Error("another inode is held")
				}
				n.Unpin()
			}
			if got := s.tab.finder.walks.Load(); got != tt.walks {
				t.Errorf("%d walks, want %d", got, tt.walks)
			}
			s.tab.fds.closing.Wait()
			if after := leak.Descriptors(t); after != before {
				t.Errorf("%d descriptors are open, %d before", after, before)
			}
		})
	}
}

// TestReopenForgotten: no walk is made for an inode that is gone.
func TestReopenForgotten(t *testing.T) {
	s := newSite(t)
	n := s.file("a")
	s.tab.LimitIdle(0)
	s.tab.Forget(n.ID, 1)
	if err := n.Pin(); err != unix.ESTALE || s.tab.finder.walks.Load() != 0 {
		t.Errorf("%v, after %d walks", err, s.tab.finder.walks.Load())
	}
}

// TestReopenError: an error unrelated to the inode does not become ESTALE, by a name or by a path.
func TestReopenError(t *testing.T) {
	s := newSite(t)
	n := s.file("a")
	long := strings.Repeat("x", 300)
	if _, err := s.tab.reopenName(n, s.tab.Root().In(long)); err == nil || err == unix.ESTALE {
		t.Errorf("by name: %v", err)
	}
	for _, path := range []string{long, "a/" + long} {
		if _, err := s.tab.reopenPath(n, path); err == nil || (err == unix.ESTALE) != (path != long) {
			t.Errorf("by path: %v", err)
		}
	}
}
