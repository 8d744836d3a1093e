package fs

import (
	"os"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestBelieverIsNoNumber: what the kernel believed of a file that it has forgotten is nothing
// to the next file of that number; but it is as long as the kernel goes by the number.
func TestBelieverIsNoNumber(t *testing.T) {
	for _, forgotten := range []bool{true, false} {
		dir := t.TempDir()
		for _, name := range []string{"a.log", "b.log"} {
			if err := os.WriteFile(dir+"/"+name, nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		var tab table
		fd, st := openByPath(t, dir)
		tab.init(fd, st)
		root := tab.root()
		fd, st = openByPath(t, dir+"/a.log")
		a := tab.enter(fd, st, 1, root, "a.log")
		ino := st.Ino
		tab.foundGone(nameKey{root, "a.log"}) // other hands renamed it
		if forgotten {
			tab.forget(a.id, 1)
		} else {
			tab.addName(a, root, "c.vmss")
			tab.fds.relieve() // else BACKING does not give the number away
		}
		fd, st = openByPath(t, dir+"/b.log")
		st.Ino = ino
		b := tab.enter(fd, st, 2, root, "b.log")
		if b == a || b.id != a.id {
			t.Fatalf("node %d has id %d: nothing is tested", b.order, b.id)
		}
		if lost, _ := tab.lostBy(b); slices.Contains(lost, nameKey{root, "c.vmss"}) == forgotten {
			t.Errorf("forgotten %t: the next file of the number has lost %v", forgotten, lost)
		}
		tab.moveName(nameKey{root, "a.log"}, nameKey{root, "vm.vmss"}, false)
		if lost, _ := tab.lostBy(b); slices.Contains(lost, nameKey{root, "vm.vmss"}) == forgotten {
			t.Errorf("forgotten %t: the next file of the number has lost %v", forgotten, lost)
		}
		if err := tab.close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestBelievedIsBounded: when more is to be remembered than there is room for, no file gets a
// name of another class for a while.
func TestBelievedIsBounded(t *testing.T) {
	r := newRig(t, nil)
	later := r.stopClock()
	tab := &r.fs.table
	at := nameKey{tab.root(), "a.log"}
	crowd := func(n int) {
		tab.mu.Lock()
		defer tab.mu.Unlock()
		for i := range n {
			tab.believed.add(at, believer{uint64(i), 0}, tab.now())
		}
	}
	r.write("a.txt", "")
	r.write("b.txt", "")
	crowd(mostBelieved)
	wantErrno(t, "rename to another class", os.Rename(r.path("a.txt"), r.path("a.log")), 0)
	crowd(10 * mostBelieved)
	tab.mu.Lock()
	if got := len(tab.believed.by[at]); got != mostBelieved || tab.believed.count != got {
		t.Errorf("%d believers, counted %d", got, tab.believed.count)
	}
	tab.mu.Unlock()
	wantErrno(t, "rename to another class, overfull", os.Rename(r.path("b.txt"), r.path("b.log")), unix.EXDEV)
	wantErrno(t, "rename in a class, overfull", os.Rename(r.path("b.txt"), r.path("c.txt")), 0)
	later(lostFor + time.Second)
	crowd(1)
	wantErrno(t, "rename to another class, later", os.Rename(r.path("c.txt"), r.path("c.log")), 0)
	tab.mu.Lock()
	if tab.believed.count != 1 {
		t.Errorf("%d believers are remembered", tab.believed.count)
	}
	tab.mu.Unlock()
}
