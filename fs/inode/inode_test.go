package inode

import (
	"os"
	"path/filepath"
	"testing"

	"vmcryptfs/fs/backing"

	"golang.org/x/sys/unix"
)

// body has an inode, and counts the calls of Forgotten.
type body struct {
	Inode
	ended int
}

func (b *body) Forgotten() error {
	b.ended++
	return nil
}

// fresh makes the inode of a body.
func fresh(*unix.Stat_t) *Inode {
	b := new(body)
	b.Owner = b
	return &b.Inode
}

// openByPath opens a path as O_PATH.
func openByPath(t *testing.T, path string) (int, *unix.Stat_t) {
	t.Helper()
	fd, err := unix.Open(path, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		t.Fatal(err)
	}
	return fd, &st
}

// site is a table over a directory, without a mount.
type site struct {
	t   *testing.T
	dir string
	tab Table
}

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{t: t, dir: t.TempDir()}
	fd, st := openByPath(t, s.dir)
	s.tab.Init(fd, st, fresh)
	t.Cleanup(func() {
		if err := s.tab.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// file makes a file and counts a lookup of it.
func (s *site) file(name string) *Inode {
	s.t.Helper()
	if err := os.WriteFile(filepath.Join(s.dir, name), nil, 0o644); err != nil {
		s.t.Fatal(err)
	}
	return s.lookup(name)
}

func (s *site) lookup(name string) *Inode {
	s.t.Helper()
	fd, st := openByPath(s.t, filepath.Join(s.dir, name))
	return s.tab.Enter(fd, st, 1, s.tab.Root().In(name))
}

// TestClosedWithoutLocks: no lock of the table is held over a close. The last close of a removed
// file takes as long as the file is large, and may wait for a network.
func TestClosedWithoutLocks(t *testing.T) {
	s := newSite(t)
	closed := 0
	s.tab.fds.close = func(fd int) error {
		closed++
		if !s.tab.mu.TryLock() {
			t.Fatal("a descriptor is closed under Table.mu")
		}
		s.tab.mu.Unlock()
		if !s.tab.fds.mu.TryLock() {
			t.Fatal("a descriptor is closed under descriptors.mu")
		}
		s.tab.fds.mu.Unlock()
		return unix.Close(fd)
	}
	s.tab.LimitIdle(1)
	for _, name := range []string{"a", "b", "c", "d"} {
		s.file(name)
	}
	root := s.tab.Root()
	s.lookup("a").AddName(root.In("a2"))
	s.tab.MoveName(root.In("b"), root.In("b2"), false)
	s.tab.Removed(root.In("c"))
	s.tab.FoundGone(root.In("d"))
	for range 3 { // each closes the descriptor of another
		for _, name := range []string{"a", "d", "c"} {
			s.lookup(name)
		}
	}
	if closed < 4 {
		t.Errorf("%d descriptors are closed: nothing is tested", closed)
	}
}

// TestOwnerEnds: the owner of an inode ends once, when no lookup, no handle and no name of a child
// keeps the inode.
func TestOwnerEnds(t *testing.T) {
	s := newSite(t)
	n := s.file("a")
	b := n.Owner.(*body)
	n.Ref()
	s.tab.Forget(n.ID, 1)
	if b.ended != 0 {
		t.Error("the owner ended while a handle is open")
	}
	n.Unref()
	if b.ended != 1 || n.Hold() != unix.ESTALE {
		t.Errorf("ended %d times; an inode that is gone can be held", b.ended)
	}
}

// TestSucceed: the names lead to the other backing inode, and the first one keeps its number.
func TestSucceed(t *testing.T) {
	s := newSite(t)
	n := s.file("a")
	shown := n.Ino
	if err := n.Hold(); err != nil {
		t.Fatal(err)
	}
	n.SetOpen(true)
	for _, name := range []string{"b", "c"} {
		if err := os.WriteFile(filepath.Join(s.dir, name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
		fd, st := openByPath(t, filepath.Join(s.dir, name))
		n.Mu.Lock()
		n.Succeed(fd, backing.KeyOf(st), 7)
		n.Mu.Unlock()
		if n.FD() != fd || n.Key() != backing.KeyOf(st) || n.Ino != shown {
			t.Errorf("after %s: descriptor %d, key %v, shown number %d", name, n.FD(), n.Key(), n.Ino)
		}
		if got := s.tab.Count().Descriptors; got != 3 { // the root's, the first form's, the new one's
			t.Errorf("%d descriptors are open", got)
		}
	}
	n.SetOpen(false)
	n.LetGo()
}
