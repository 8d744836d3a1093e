package inode

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"vmcryptfs/fs/backing"
)

func TestTableByHand(t *testing.T) {
	dir := t.TempDir()
	open := func(name string) (int, *unix.Stat_t) { return openByPath(t, filepath.Join(dir, name)) }
	for _, name := range []string{"a", "b"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "d"), 0o755); err != nil {
		t.Fatal(err)
	}
	var tab Table
	fd, st := open(".")
	tab.Init(fd, st, fresh)
	root := tab.Root()
	fd, st = open("d")
	d := tab.Enter(fd, st, 1, Place{root, "d"})
	fd, st = open("a")
	a := tab.Enter(fd, st, 1, Place{d, "a"})
	fd, st = open("a")
	if again := tab.Enter(fd, st, 1, Place{d, "a2"}); again != a || a.lookups != 2 || len(a.names) != 2 {
		t.Errorf("the same inode is another node, or has %d lookups, %d names", a.lookups, len(a.names))
	}
	a.Ref()
	tab.Forget(a.ID, 5) // more than there are
	tab.Forget(d.ID, 1)
	if tab.Get(a.ID) != a || tab.Get(d.ID) != d {
		t.Error("a node with an open handle, or its directory, is gone")
	}
	fd, st = open("b")
	b := tab.Enter(fd, st, 1, Place{d, "a"}) // the name leads to another file now
	if names, _ := a.Names(); len(names) != 1 || names[0].Name != "a2" {
		t.Errorf("names of a: %v", names)
	}
	tab.RenameName(Place{d, "a"}, Place{d, "a2"}, true)
	if names, _ := a.Names(); len(names) != 1 || names[0].Name != "a" {
		t.Errorf("names of a after the exchange: %v", names)
	}
	tab.Removed(Place{d, "a"})
	if names, last := a.Names(); len(names) != 0 || last.Name != "a" {
		t.Errorf("names of a after its removal: %v, last %q", names, last.Name)
	}
	a.Unref()
	tab.Forget(b.ID, 1)
	if n := tab.Count().Inodes; n != 1 || root.refs != 0 {
		t.Errorf("%d nodes are left, root has %d references", n, root.refs)
	}
	if err := tab.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestNumberGivenAway: an inode that has got the number of a removed one is an inode of its own,
// and the kernel's lookups of both are counted under the ID that both share.
func TestNumberGivenAway(t *testing.T) {
	dir := t.TempDir()
	open := func(name string) (int, unix.Stat_t) {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
		fd, st := openByPath(t, filepath.Join(dir, name))
		return fd, *st
	}
	root, rootStat := open("root")
	var tab Table
	tab.Init(root, &rootStat, fresh)
	defer tab.Close()
	fd, st := open("a")
	a := tab.Enter(fd, &st, 1, Place{tab.Root(), "a"})
	fd, _ = open("b") // as if the file had the number of a
	if b := tab.Enter(fd, &st, 2, Place{tab.Root(), "b"}); b != a {
		t.Fatal("while a keeps its number nobody else can have it")
	}
	tab.LimitIdle(0)
	fd, _ = open("b")
	b := tab.Enter(fd, &st, 2, Place{tab.Root(), "b"})
	if b == a || b.ID != a.ID || b.Born == a.Born || b.lookups != 3 || tab.Get(a.ID) != b {
		t.Errorf("ids %d %d, generations %d %d, %d lookups", a.ID, b.ID, a.Born, b.Born, b.lookups)
	}
	if err := a.Pin(); err != unix.ESTALE {
		t.Errorf("use of a: %v", err)
	}
	tab.Forget(b.ID, 3)
	if n := tab.Count().Inodes; n != 1 {
		t.Errorf("%d nodes are left", n)
	}
}

// TestNodeIDs are BACKING's numbers but for the root's, which is 1.
func TestNodeIDs(t *testing.T) {
	tab := Table{rootIno: 77, byID: map[uint64]*Inode{500: nil}}
	for ino, want := range map[uint64]uint64{77: 1, 1: 77, 5: 5} {
		if got := tab.idOf(ino); got != want || tab.idOf(got) != ino {
			t.Errorf("id of %d is %d, back %d", ino, got, tab.idOf(got))
		}
		if got := tab.freeID(ino); got != want {
			t.Errorf("free id of %d is %d", ino, got)
		}
	}
	tab.byID[500] = &Inode{}
	for _, ino := range []uint64{0, 500} {
		if id := tab.freeID(ino); id>>63 != 1 {
			t.Errorf("id %d for number %d", id, ino)
		}
	}
}

// TestOtherDevice: an inode number of another file system below BACKING is shown with the index of
// the file system, and leads back to the inode.
func TestOtherDevice(t *testing.T) {
	s := newSite(t)
	root := s.tab.Root().Key()
	s.plant("a")
	for _, tt := range []struct {
		key   backing.Key
		shown uint64
		id    uint64
	}{
		{root, root.Ino, RootID},
		{s.keyAt("a"), s.keyAt("a").Ino, s.keyAt("a").Ino},
		{backing.Key{Dev: 1 << 40, Ino: 5}, 1<<56 | 5, 1<<56 | 5},
		{backing.Key{Dev: 1 << 41, Ino: 5}, 2<<56 | 5, 2<<56 | 5},
		{backing.Key{Dev: 1 << 40, Ino: root.Ino}, 1<<56 | root.Ino, 1<<56 | root.Ino},
	} {
		if shown, id := s.tab.Shown(tt.key), s.tab.IDFor(tt.key); shown != tt.shown || id != tt.id {
			t.Errorf("%v: shown %#x, id %#x; want %#x, %#x", tt.key, shown, id, tt.shown, tt.id)
		}
		if got := s.tab.KeyFor(tt.id); got != tt.key {
			t.Errorf("id %#x is of %v, want %v", tt.id, got, tt.key)
		}
		if got := s.tab.OnRoot(tt.key); got != (tt.key.Dev == root.Dev) {
			t.Errorf("%v in BACKING's own file system: %t", tt.key, got)
		}
	}
}

// TestVisit: an inode asked for by its id has one lookup more.
func TestVisit(t *testing.T) {
	s := newSite(t)
	n := s.file("a")
	if s.tab.Visit(n.ID) != n || s.tab.Visit(n.ID+1<<40) != nil {
		t.Error("an id is another inode's")
	}
	for _, there := range []bool{true, false} {
		s.tab.Forget(n.ID, 1)
		if got := s.tab.Get(n.ID) == n && s.tab.Called(s.place("a")) == n; got != there {
			t.Errorf("there: %t, want %t", got, there)
		}
	}
	s.tab.Forget(RootID, 1)
	if s.tab.Root() == nil {
		t.Error("the root is forgotten")
	}
}

// TestEnterNew: a new file that has the number of a removed one is another inode with another id,
// where nothing but the number is there to go by. A file that another caller found before is the
// same inode.
func TestEnterNew(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a")
	if err := os.WriteFile(path, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		what    string
		birth   backing.Birth
		removed bool
		another bool
	}{
		{"removed", 0, true, true},
		{"found before", 0, false, false},
		{"of a file system that tells births", 1, true, false},
	} {
		var tab Table
		fd, st := openByPath(t, dir)
		tab.Init(fd, st, fresh)
		at := Place{tab.Root(), "a"}
		fd, st = openByPath(t, path)
		old := tab.Enter(fd, st, tt.birth, at)
		if tt.removed {
			tab.Removed(at)
		}
		fd, st = openByPath(t, path)
		n := tab.EnterNew(fd, st, tt.birth, at)
		if another := n != old; another != tt.another || another == (n.ID == old.ID) {
			t.Errorf("%s: another inode %t, ids %d and %d", tt.what, another, n.ID, old.ID)
		}
		if tab.Get(old.ID) != old || tab.Get(n.ID) != n || tab.Called(at) != n {
			t.Errorf("%s: the ids, or the name, lead elsewhere", tt.what)
		}
		if names, _ := n.LostNames(); tt.another && len(names) > 0 {
			t.Errorf("%s: the new file has lost %v", tt.what, names)
		}
		tab.Forget(old.ID, 1)
		tab.Forget(n.ID, 1)
		if err := tab.Close(); err != nil {
			t.Error(err)
		}
	}
}
