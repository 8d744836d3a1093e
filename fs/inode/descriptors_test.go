package inode

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"vmcryptfs/fs/backing"
	"vmcryptfs/integration/leak"

	"golang.org/x/sys/unix"
)

// TestIdleOrder: of the unused descriptors, those used longest ago go first.
func TestIdleOrder(t *testing.T) {
	for _, tt := range []struct {
		use   string // files pinned and unpinned, in turn
		limit int    // of descriptors, the root's among them
		open  string // files whose descriptors stay
	}{
		{"", 5, "a b c d"},
		{"", 3, "c d"},
		{"a", 3, "a d"},
		{"a b a", 3, "a b"},
		{"d c b a", 2, "a"},
		{"", 1, ""},
		{"b", 0, ""}, // the root, known by no name, keeps its descriptor
	} {
		s := newSite(t)
		files := map[string]*Inode{}
		for _, name := range strings.Fields("a b c d") {
			files[name] = s.file(name)
		}
		for _, name := range strings.Fields(tt.use) {
			s.do(files[name].Pin())
			files[name].Unpin()
		}
		s.tab.LimitIdle(tt.limit)
		var open []string
		for name, n := range files {
			if n.isOpen() {
				open = append(open, name)
			}
		}
		slices.Sort(open)
		if got := strings.Join(open, " "); got != tt.open {
			t.Errorf("limit %d after use of %q: open %q, want %q", tt.limit, tt.use, got, tt.open)
		}
		if got := s.tab.Count().Descriptors; got != len(open)+1 {
			t.Errorf("%d descriptors are counted, %d open", got, len(open)+1)
		}
	}
}

// TestLimit: a descriptor above the limit costs an idle one; so does a descriptor opened again.
func TestLimit(t *testing.T) {
	s := newSite(t)
	const limit = 4
	s.tab.LimitIdle(limit)
	var all []*Inode
	for i := range 3 * limit {
		all = append(all, s.file(fmt.Sprint(i)))
		if got := s.tab.Count().Descriptors; got > limit {
			t.Fatalf("file %d: %d descriptors", i, got)
		}
	}
	for i, n := range all {
		s.do(n.Pin())
		n.Unpin()
		if got := s.tab.Count().Descriptors; got != limit || !n.isOpen() {
			t.Fatalf("use of file %d: %d descriptors, its own open: %t", i, got, n.isOpen())
		}
	}
}

// TestKept: a descriptor stays if the inode is held, the file is open, or no name is known for a
// new open.
func TestKept(t *testing.T) {
	for what, tt := range map[string]struct{ keep, end func(s *site, n *Inode) }{
		"held": {
			func(s *site, n *Inode) { s.do(n.Pin()) },
			func(_ *site, n *Inode) { n.Unpin() },
		},
		"held twice": {
			func(s *site, n *Inode) { s.do(n.Pin(), n.Pin()); n.Unpin() },
			func(_ *site, n *Inode) { n.Unpin() },
		},
		"open file": {
			func(s *site, n *Inode) { s.do(n.Pin()); n.SetOpen(true); n.Unpin() },
			func(s *site, n *Inode) { s.do(n.Pin()); n.SetOpen(false); n.Unpin() },
		},
		"no name": {
			func(s *site, _ *Inode) { s.tab.Removed(s.place("a")) },
			func(s *site, n *Inode) { n.AddName(s.place("a")) },
		},
	} {
		t.Run(what, func(t *testing.T) {
			s := newSite(t)
			n := s.file("a")
			tt.keep(s, n)
			s.tab.LimitIdle(0)
			if !n.isOpen() || s.tab.fds.relieve() {
				t.Error("the descriptor is given up")
			}
			tt.end(s, n)
			if n.isOpen() {
				t.Error("the descriptor is kept")
			}
		})
	}
}

// TestLastPin: an inode that is gone keeps its descriptors until the last pin ends.
func TestLastPin(t *testing.T) {
	s := newSite(t)
	n := s.file("a")
	s.do(n.Pin(), n.Pin())
	s.tab.Forget(n.ID, 1)
	n.Unpin()
	var st unix.Stat_t
	if err := unix.Fstat(n.FD(), &st); err != nil {
		t.Errorf("the descriptor in use: %v", err)
	}
	if n.Pin() != unix.ESTALE {
		t.Error("an inode that is gone is held anew")
	}
	n.Unpin()
	if n.isOpen() || s.tab.Count().Descriptors != 1 {
		t.Error("the descriptor is open after the last pin")
	}
}

// TestHoldWith: the given descriptor becomes the inode's, or is closed.
func TestHoldWith(t *testing.T) {
	for what, tt := range map[string]struct {
		before func(s *site, n *Inode)
		takes  bool
		want   error
	}{
		"none":    {func(s *site, _ *Inode) { s.tab.LimitIdle(0) }, true, nil},
		"another": {func(*site, *Inode) {}, false, nil},
		"gone":    {func(s *site, n *Inode) { s.tab.Forget(n.ID, 1) }, false, unix.ESTALE},
	} {
		s := newSite(t)
		n := s.file("a")
		tt.before(s, n)
		fd, _ := openByPath(t, s.path("a"))
		before := leak.Descriptors(t)
		err := n.pinWith(fd)
		if err != tt.want || (n.fd == fd) != tt.takes || (leak.Descriptors(t) == before) != tt.takes {
			t.Errorf("%s: %v, taken %t, descriptors %d, %d before", what, err, n.fd == fd, leak.Descriptors(t), before)
		}
		if err == nil {
			n.Unpin()
		}
	}
}

// TestConvertedGivesUpBoth: an idle inode of two backing files gives both descriptors up, and is
// opened again as the backing file of its names.
func TestConvertedGivesUpBoth(t *testing.T) {
	s := newSite(t)
	n := s.file("a")
	s.plant("new")
	fd, st := openByPath(t, s.path("new"))
	s.do(n.Pin())
	n.Mu.Lock()
	n.Succeed(fd, backing.KeyOf(st), s.tab.BirthOf(fd))
	n.Mu.Unlock()
	n.Unpin()
	s.do(unix.Rename(s.path("new"), s.path("a")))
	s.tab.LimitIdle(0)
	if got := s.tab.Count().Descriptors; got != 1 {
		t.Errorf("%d descriptors are open", got)
	}
	var now unix.Stat_t
	if err := n.Stat(&now); err != nil || now.Ino != st.Ino {
		t.Errorf("number %d, %v; want %d", now.Ino, err, st.Ino)
	}
}

// TestRelieve: half of the descriptors are given up, as far as they are unused.
func TestRelieve(t *testing.T) {
	for _, tt := range []struct{ files, held, left int }{{0, 0, 1}, {1, 0, 1}, {7, 0, 4}, {7, 5, 6}, {3, 3, 4}} {
		s := newSite(t)
		for i := range tt.files {
			if n := s.file(fmt.Sprint(i)); i < tt.held {
				s.do(n.Pin())
				defer n.Unpin()
			}
		}
		gave := s.tab.fds.relieve()
		if left := s.tab.Count().Descriptors; left != tt.left || gave != (left < tt.files+1) {
			t.Errorf("%d files, %d held: %d descriptors are left, want %d; reports %t", tt.files, tt.held, left, tt.left, gave)
		}
	}
}

// TestSparing: a file is opened once more only when the process has no descriptor left, and idle
// ones could be given up.
func TestSparing(t *testing.T) {
	const fd = 1000
	for _, tt := range []struct {
		what   string
		idle   int
		errs   []error // of the calls, one after another
		want   error
		calls  int
		closed bool
	}{
		{"no error", 4, []error{nil}, nil, 1, false},
		{"another error", 4, []error{unix.ENFILE}, unix.ENFILE, 1, false},
		{"descriptors to give up", 4, []error{fmt.Errorf("open: %w", unix.EMFILE), nil}, nil, 2, true},
		{"none to give up", 0, []error{unix.EMFILE}, unix.EMFILE, 1, false},
		{"not enough", 4, []error{unix.EMFILE, unix.EMFILE}, unix.EMFILE, 2, true},
	} {
		s := newSite(t)
		for i := range tt.idle {
			s.file(fmt.Sprint(i))
		}
		calls, before := 0, s.tab.Count().Descriptors
		got, err := s.tab.Root().Sparing(func() (int, error) { calls++; return fd, tt.errs[calls-1] })
		if got != fd || !errors.Is(err, tt.want) || calls != tt.calls {
			t.Errorf("%s: %d, %v after %d calls", tt.what, got, err, calls)
		}
		if closed := s.tab.Count().Descriptors < before; closed != tt.closed {
			t.Errorf("%s: descriptors given up: %t", tt.what, closed)
		}
	}
}

// TestDescriptorLimitOfProcess: look-ups go on when the process has no descriptor left.
func TestDescriptorLimitOfProcess(t *testing.T) {
	if !inChild(t) {
		return
	}
	s := newSite(t)
	const files = 200
	for i := range files {
		s.plant(fmt.Sprint(i))
	}
	for i := range files / 2 {
		s.lookup(fmt.Sprint(i))
	}
	var l unix.Rlimit
	s.do(unix.Getrlimit(unix.RLIMIT_NOFILE, &l))
	low := l
	low.Cur = uint64(leak.Descriptors(t))
	s.do(unix.Setrlimit(unix.RLIMIT_NOFILE, &low))
	defer unix.Setrlimit(unix.RLIMIT_NOFILE, &l)
	for i := range files {
		fd, err := s.tab.OpenPath(s.tab.Root().fd, fmt.Sprint(i))
		if err != nil {
			t.Fatalf("file %d: %v", i, err)
		}
		var st unix.Stat_t
		s.do(unix.Fstat(fd, &st))
		s.tab.Enter(fd, &st, s.tab.BirthOf(fd), s.place(fmt.Sprint(i)))
	}
	if got := s.tab.Count(); got.Inodes != files+1 || got.Descriptors >= files {
		t.Errorf("%d inodes, %d descriptors: nothing is tested", got.Inodes, got.Descriptors)
	}
}

// TestDescriptorLimit: a quarter of the process's limit is for idle descriptors, up to a bound.
func TestDescriptorLimit(t *testing.T) {
	if !inChild(t) {
		return
	}
	for _, tt := range []struct {
		files uint64
		want  int
	}{{64, 16}, {1000, 250}, {4 * mostDescriptors, mostDescriptors}, {8 * mostDescriptors, mostDescriptors}} {
		var l unix.Rlimit
		if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
			t.Fatal(err)
		}
		if tt.files > l.Max {
			continue // nobody may raise it
		}
		l.Cur = tt.files
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
			t.Fatal(err)
		}
		if got := descriptorLimit(); got != tt.want {
			t.Errorf("of %d: %d, want %d", tt.files, got, tt.want)
		}
	}
}

// TestDescriptorsInParallel: whatever is given up meanwhile, a pinned inode has its descriptor.
func TestDescriptorsInParallel(t *testing.T) {
	s := newSite(t)
	var all []*Inode
	for i := range 6 {
		all = append(all, s.file(fmt.Sprint(i)))
	}
	s.tab.LimitIdle(3)
	var users sync.WaitGroup
	for g := range 4 {
		users.Go(func() {
			for i := range 300 {
				n := all[(g+i)%len(all)]
				if err := n.At(func(fd int) error {
					if !n.isInode(fd) {
						return unix.EBADF
					}
					return nil
				}); err != nil {
					t.Errorf("file %d: %v", n.ID, err)
					return
				}
				if i%50 == 0 {
					s.tab.fds.relieve()
				}
			}
		})
	}
	users.Wait()
	if got := s.tab.Count().Descriptors; got > 3 {
		t.Errorf("%d descriptors are open", got)
	}
}
