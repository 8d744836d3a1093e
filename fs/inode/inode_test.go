package inode

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

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

// site is a table over a directory, without a mount. The clock of the table stands.
type site struct {
	t   *testing.T
	dir string
	now time.Time
	tab Table
}

func newSite(t *testing.T) *site { return newSiteOf(t, false) }

// newSiteOf makes a site whose inodes are bound, or not.
func newSiteOf(t *testing.T, byPaths bool) *site {
	t.Helper()
	s := &site{t: t, dir: t.TempDir(), now: time.Unix(1e9, 0)}
	s.tab.Now = func() time.Time { return s.now }
	s.tab.ByPaths = byPaths
	fd, st := openByPath(t, s.dir)
	s.tab.Init(fd, st, fresh)
	t.Cleanup(func() {
		if err := s.tab.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// path is the path of a name in BACKING.
func (s *site) path(name string) string { return filepath.Join(s.dir, name) }

// do fails the test if a preparation did.
func (s *site) do(errs ...error) {
	s.t.Helper()
	if err := errors.Join(errs...); err != nil {
		s.t.Fatal(err)
	}
}

// file makes a file at a path and counts a lookup of the file.
func (s *site) file(at string) *Inode {
	s.t.Helper()
	s.plant(at)
	return s.lookup(at)
}

// plant makes a file unknown to the table.
func (s *site) plant(at string) {
	s.t.Helper()
	s.do(os.WriteFile(s.path(at), nil, 0o644))
}

// mkdir makes a directory and counts a lookup of the directory.
func (s *site) mkdir(at string) *Inode {
	s.t.Helper()
	s.do(os.Mkdir(s.path(at), 0o755))
	return s.lookup(at)
}

// lookup counts a lookup of a path, whose directory the table knows.
func (s *site) lookup(at string) *Inode {
	s.t.Helper()
	fd, st := openByPath(s.t, s.path(at))
	return s.tab.Enter(fd, st, s.tab.BirthOf(fd), s.place(at))
}

// place is the Place of a path whose directory the table knows.
func (s *site) place(at string) Place {
	dir := s.tab.Root()
	parent, name := filepath.Split(at)
	for _, p := range strings.FieldsFunc(parent, func(r rune) bool { return r == '/' }) {
		dir = s.tab.Called(dir.In(p))
	}
	return dir.In(name)
}

// isOpen reports whether n has a descriptor now.
func (n *Inode) isOpen() bool {
	n.table.fds.mu.Lock()
	defer n.table.fds.mu.Unlock()
	return n.fd >= 0
}

// inChild runs the rest of a test in a process of its own, whose limits are no other test's.
func inChild(t *testing.T) (child bool) {
	t.Helper()
	const mark = "VMCRYPTFS_TEST_CHILD"
	if os.Getenv(mark) == t.Name() {
		return true
	}
	c := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.count=1", "-test.v")
	c.Env = append(os.Environ(), mark+"="+t.Name())
	if out, err := c.CombinedOutput(); err != nil || !bytes.Contains(out, []byte("--- PASS: "+t.Name())) {
		t.Errorf("in a child: %v\n%s", err, out)
	}
	return false
}

// TestLongClose: the last close of a removed file takes as long as the file is large, and may wait
// for a network. While such a close lasts, the table goes on, also for callers who have locks above
// those of the table.
func TestLongClose(t *testing.T) {
	s := newSite(t)
	begun, end := make(chan struct{}, 100), make(chan struct{})
	s.tab.fds.close = func(fd int) error {
		begun <- struct{}{}
		<-end
		return unix.Close(fd)
	}
	s.tab.fds.limit = 1
	root := s.tab.Root()
	for _, name := range []string{"a", "b", "c", "d"} {
		s.file(name)
	}
	<-begun // and it does not end
	s.lookup("a").AddName(root.In("a2"))
	s.tab.RenameName(root.In("b"), root.In("b2"), false)
	s.tab.Removed(root.In("c"))
	s.tab.FoundGone(root.In("d"))
	for range 3 { // each takes the descriptor of another
		for _, name := range []string{"a", "d", "c"} {
			n := s.lookup(name)
			if err := n.Pin(); err != nil {
				t.Fatal(err)
			}
			n.Mu.Lock()
			n.SetOpen(true)
			n.SetOpen(false)
			n.Mu.Unlock()
			n.Unpin()
		}
	}
	if len(begun) > 0 {
		t.Error("two closes are under way: nothing is tested")
	}
	close(end)
	s.tab.fds.closing.Wait()
	if len(begun) < 4 {
		t.Errorf("%d descriptors were closed: nothing is tested", len(begun))
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
	if b.ended != 1 || n.Pin() != unix.ESTALE {
		t.Errorf("ended %d times; an inode that is gone can be pinned", b.ended)
	}
}

// TestSucceed: the names lead to the other backing inode, and the first one keeps its number.
func TestSucceed(t *testing.T) {
	s := newSite(t)
	n := s.file("a")
	shown := n.Ino
	if err := n.Pin(); err != nil {
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
	n.Unpin()
}

// TestKinds: the kind of an inode is that of its status.
func TestKinds(t *testing.T) {
	s := newSite(t)
	s.do(os.Symlink("nowhere", s.path("link")))
	for _, tt := range []struct {
		n            *Inode
		dir, regular bool
	}{{s.mkdir("d"), true, false}, {s.file("f"), false, true}, {s.lookup("link"), false, false}} {
		if tt.n.IsDir() != tt.dir || tt.n.IsRegular() != tt.regular {
			t.Errorf("kind %#o: directory %t, regular %t", tt.n.Kind, tt.n.IsDir(), tt.n.IsRegular())
		}
	}
}

// TestMoves: each name that a directory gets, or loses to another directory, is a change of the
// directory.
func TestMoves(t *testing.T) {
	s := newSite(t)
	d, e := s.mkdir("d"), s.mkdir("e")
	n := s.file("d/a")
	for _, tt := range []struct {
		what   string
		do     func()
		d, e   bool
		called string
	}{
		{"look-up", func() { s.lookup("d/a") }, false, false, "d/a"},
		{"new name", func() { n.AddName(d.In("b")) }, true, false, "d/b"},
		{"rename", func() { s.tab.RenameName(d.In("b"), e.In("c"), false) }, true, true, "e/c"},
		{"exchange", func() { s.tab.RenameName(e.In("c"), d.In("a"), true) }, true, true, "d/a"},
		{"removal", func() { s.tab.Removed(d.In("a")) }, true, false, "e/c"},
	} {
		wasD, wasE := d.Renames.Load(), e.Renames.Load()
		tt.do()
		if movedD, movedE := d.Renames.Load() != wasD, e.Renames.Load() != wasE; movedD != tt.d || movedE != tt.e {
			t.Errorf("%s: changed d %t, e %t; want %t, %t", tt.what, movedD, movedE, tt.d, tt.e)
		}
		if s.tab.Called(s.place(tt.called)) != n {
			t.Errorf("%s: %s is not the file's", tt.what, tt.called)
		}
	}
}

// TestAt: the descriptor is the inode's own and stays open while in use, whatever is given up
// meanwhile; an inode that is gone has none.
func TestAt(t *testing.T) {
	s := newSite(t)
	n := s.file("a")
	s.tab.LimitIdle(0)
	if n.isOpen() {
		t.Fatal("the descriptor is open: nothing is tested")
	}
	err := n.At(func(fd int) error {
		s.tab.LimitIdle(0)
		if !n.isOpen() || n.FD() != fd || !n.isInode(fd) {
			t.Error("the descriptor is closed, or not the inode's")
		}
		if n.Mu.TryLock() {
			t.Error("the inode could change its backing file")
			n.Mu.Unlock()
		}
		return unix.EXDEV
	})
	if err != unix.EXDEV {
		t.Errorf("error %v", err)
	}
	if n.isOpen() {
		t.Error("the descriptor stays open after use")
	}
	s.tab.Forget(n.ID, 1)
	if err := n.At(func(int) error { t.Error("called for an inode that is gone"); return nil }); err != unix.ESTALE {
		t.Errorf("an inode that is gone: %v", err)
	}
}

// TestStat: the status is the backing inode's, also when a name has come to lead elsewhere.
func TestStat(t *testing.T) {
	s := newSite(t)
	n := s.file("a")
	s.do(os.WriteFile(s.path("a"), []byte("seven b"), 0), os.Rename(s.path("a"), s.path("b")))
	s.plant("a")
	var st unix.Stat_t
	if err := n.Stat(&st); err != nil || st.Size != 7 || backing.KeyOf(&st) != n.Key() {
		t.Errorf("%d bytes, %v", st.Size, err)
	}
	s.do(os.Remove(s.path("b")))
	s.tab.LimitIdle(0)
	if err := n.Stat(&st); err != unix.ESTALE {
		t.Errorf("a file that is gone: %v", err)
	}
}
