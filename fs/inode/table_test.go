package inode

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
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
	tab.MoveName(Place{d, "a"}, Place{d, "a2"}, true)
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
	if err := a.Hold(); err != unix.ESTALE {
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

// TestBelieverIsNoNumber: the names by which the kernel knew a file are no names of the next file
// with that number, once the kernel has forgotten the number; until then they are.
func TestBelieverIsNoNumber(t *testing.T) {
	for _, forgotten := range []bool{true, false} {
		dir := t.TempDir()
		for _, name := range []string{"a.log", "b.log"} {
			if err := os.WriteFile(dir+"/"+name, nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		var tab Table
		fd, st := openByPath(t, dir)
		tab.Init(fd, st, fresh)
		root := tab.Root()
		fd, st = openByPath(t, dir+"/a.log")
		a := tab.Enter(fd, st, 1, Place{root, "a.log"})
		ino := st.Ino
		tab.FoundGone(Place{root, "a.log"}) // other hands renamed the file
		if forgotten {
			tab.Forget(a.ID, 1)
		} else {
			a.AddName(Place{root, "c.vmss"})
			tab.fds.relieve() // else BACKING does not give the number away
		}
		fd, st = openByPath(t, dir+"/b.log")
		st.Ino = ino
		b := tab.Enter(fd, st, 2, Place{root, "b.log"})
		if b == a || b.ID != a.ID {
			t.Fatalf("node %d has.ID %d: nothing is tested", b.Order, b.ID)
		}
		if lost, _ := b.LostNames(); slices.Contains(lost, Place{root, "c.vmss"}) == forgotten {
			t.Errorf("forgotten %t: the next file of the number has lost %v", forgotten, lost)
		}
		tab.MoveName(Place{root, "a.log"}, Place{root, "vm.vmss"}, false)
		if lost, _ := b.LostNames(); slices.Contains(lost, Place{root, "vm.vmss"}) == forgotten {
			t.Errorf("forgotten %t: the next file of the number has lost %v", forgotten, lost)
		}
		if err := tab.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
