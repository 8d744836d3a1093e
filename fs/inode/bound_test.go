package inode

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"vmcryptfs/fs/backing"
	"vmcryptfs/integration/leak"
)

// lead has fd lead to the file now at a path, as a file system that goes by paths does.
func (s *site) lead(fd int, at string) {
	s.t.Helper()
	other, _ := openByPath(s.t, s.path(at))
	defer unix.Close(other)
	s.do(unix.Dup3(other, fd, unix.O_CLOEXEC))
}

// TestRetake: Pin has the descriptor of a bound inode lead to the inode, or fails.
func TestRetake(t *testing.T) {
	for _, tt := range []struct {
		what   string
		bound  bool
		change func(s *site, n *Inode)
		want   error
		own    bool // the descriptor is the inode's own then
	}{
		{"as it was", true, func(*site, *Inode) {}, nil, true},
		{"led elsewhere, the name to the inode", true, func(s *site, n *Inode) { s.lead(n.fd, "other") }, nil, true},
		{"another known name", true, func(s *site, n *Inode) {
			s.do(os.Link(s.path("a"), s.path("b")))
			n.AddName(s.place("b"))
			s.do(os.Rename(s.path("other"), s.path("a")))
			s.lead(n.fd, "a")
		}, nil, true},
		{"no name leads to the inode", true, func(s *site, n *Inode) {
			s.do(os.Rename(s.path("other"), s.path("a")))
			s.lead(n.fd, "a")
		}, unix.ESTALE, false},
		{"the name cannot be opened", true, func(s *site, n *Inode) {
			s.tab.mu.Lock()
			n.names[0].Name = string(make([]byte, 1))
			s.tab.mu.Unlock()
			s.lead(n.fd, "other")
		}, unix.EINVAL, false},
		{"not bound", false, func(s *site, n *Inode) { s.lead(n.fd, "other") }, nil, false},
	} {
		t.Run(tt.what, func(t *testing.T) {
			s := newSiteOf(t, tt.bound)
			s.plant("other")
			n := s.file("a")
			if n.Bound != tt.bound {
				t.Fatalf("bound: %t", n.Bound)
			}
			number := n.fd
			tt.change(s, n)
			before := leak.Descriptors(t)
			err := n.Pin()
			if err != tt.want || n.isInode(n.fd) != tt.own || n.fd != number {
				t.Errorf("%v, want %v; its own: %t", err, tt.want, n.isInode(n.fd))
			}
			if leak.Descriptors(t) != before {
				t.Error("a descriptor is left open")
			}
			if err == nil {
				n.Unpin()
			}
			if n.pins != 0 {
				t.Errorf("%d pins are left", n.pins)
			}
		})
	}
}

// TestRetakeRemoved: a removed file, whose descriptor leads nowhere, is held for operations without
// a name.
func TestRetakeRemoved(t *testing.T) {
	s := newSiteOf(t, true)
	n := s.file("a")
	s.do(os.Remove(s.path("a")))
	s.tab.Removed(s.place("a"))
	other, _ := openByPath(t, s.dir)
	s.do(unix.Close(n.fd)) // fstat(2) fails, as on such a file system
	err := n.Pin()
	if err == nil {
		n.Unpin()
	}
	s.do(unix.Dup3(other, n.fd, unix.O_CLOEXEC), unix.Close(other)) // for the table to close
	if err != nil {
		t.Errorf("pin: %v", err)
	}
	if err := n.Pin(); err != unix.ESTALE {
		t.Errorf("pin when the descriptor leads to another file: %v", err)
	}
}

// TestNotRetaken: the root was found by no name, and a goroutine with Mu exclusively sees to the
// descriptor itself.
func TestNotRetaken(t *testing.T) {
	s := newSiteOf(t, true)
	n, root := s.file("a"), s.tab.Root()
	own, _ := openByPath(t, s.dir)
	defer func() { s.do(unix.Dup3(own, root.fd, unix.O_CLOEXEC), unix.Close(own)) }()
	s.lead(root.fd, "a")
	if err := root.Pin(); err != nil {
		t.Errorf("root: %v", err)
	} else {
		root.Unpin()
	}
	s.do(unix.Dup3(own, n.fd, unix.O_CLOEXEC))
	n.Mu.Lock()
	defer n.Mu.Unlock()
	if err := n.Pin(); err != nil {
		t.Errorf("while Mu is held: %v", err)
	} else {
		n.Unpin()
	}
}

// TestIsOpen: a file is the inode's own, another's, or none.
func TestIsOpen(t *testing.T) {
	s := newSite(t)
	n := s.file("a")
	s.plant("b")
	for at, want := range map[string]error{"a": nil, "b": unix.ESTALE} {
		fd, _ := openByPath(t, s.path(at))
		if err := n.IsOpen(fd); err != want {
			t.Errorf("%s: %v", at, err)
		}
		unix.Close(fd)
	}
	if err := n.IsOpen(-1); err != unix.EBADF {
		t.Errorf("no file: %v", err)
	}
}

// TestLearnDevice: inodes of a file system below BACKING are bound if the file system is one of
// FUSE's; those of BACKING are bound as the table was told.
func TestLearnDevice(t *testing.T) {
	for _, byPaths := range []bool{false, true} {
		s := newSiteOf(t, byPaths)
		s.plant("a")
		fd, st := openByPath(t, s.path("a"))
		s.tab.LearnDevice(fd, st.Dev)
		if got := s.tab.bound[st.Dev]; got != byPaths || len(s.tab.bound) != 1 {
			t.Errorf("BACKING's own: %t, want %t", got, byPaths)
		}
		proc, procStat := openByPath(t, "/proc/self/stat")
		for _, fuse := range []bool{false, true} { // a known device is not asked again
			if fuse {
				s.tab.bound[procStat.Dev] = true
			}
			s.tab.LearnDevice(proc, procStat.Dev)
			if got, known := s.tab.bound[procStat.Dev]; got != fuse || !known {
				t.Errorf("another file system: bound %t, want %t; known %t", got, fuse, known)
			}
		}
		if n := s.tab.Enter(proc, procStat, 1, Place{}); !n.Bound || n.Key() != backing.KeyOf(procStat) {
			t.Error("an inode of a file system that goes by paths is not bound")
		}
		if n := s.tab.Enter(fd, st, 1, Place{}); n.Bound != byPaths {
			t.Errorf("an inode of BACKING: bound %t, want %t", n.Bound, byPaths)
		}
	}
}
