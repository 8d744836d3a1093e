package fs

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"vmcryptfs/byname"
)

// squeeze leaves room for so many idle descriptors.
func (r *rig) squeeze(limit int) {
	d := &r.fs.table.fds
	d.mu.Lock()
	d.limit = limit
	surplus := d.surplus(limit)
	d.mu.Unlock()
	closeFDs(surplus)
}

// opened is how many descriptors the nodes have.
func (d *descriptors) opened() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.open
}

// TestFewDescriptors: more files and directories are known than there are descriptors for,
// and all work as ever.
func TestFewDescriptors(t *testing.T) {
	r := newRig(t, nil)
	const limit, dirs, files = 10, 20, 10
	r.squeeze(limit)
	name := func(d, i int) string { return fmt.Sprintf("d%d/e/f%d%s", d, i, []string{".log", ".qcow2"}[i%2]) }
	for d := range dirs {
		if err := os.MkdirAll(r.path(fmt.Sprintf("d%d/e", d)), 0o755); err != nil {
			t.Fatal(err)
		}
		for i := range files {
			r.write(name(d, i), name(d, i))
		}
	}
	r.idle()
	if known, open := r.fs.table.size(), r.fs.table.fds.opened(); known < 10*limit || open > limit {
		t.Errorf("%d nodes are known, %d descriptors open", known, open)
	}
	for d := range dirs {
		for i := range files {
			r.wantRead(name(d, i), name(d, i))
		}
		at := fmt.Sprintf("d%d/e", d)
		if err := os.Rename(r.path(at), r.path(at+"x")); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(r.path(at+"x/f0.log"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.RemoveAll(r.path(at + "x")); err != nil {
			t.Fatal(err)
		}
	}
}

// TestFewDescriptorsForConverted: nor do files that changed their form, each of which has
// two backing inodes, keep more.
func TestFewDescriptorsForConverted(t *testing.T) {
	r := newRig(t, nil)
	const limit = 10
	r.squeeze(limit)
	for i := range 3 * limit {
		r.write(fmt.Sprintf("%d.vmdk", i), descriptor)
	}
	r.idle()
	if open := r.fs.table.fds.opened(); open > limit {
		t.Errorf("%d descriptors are open", open)
	}
	for i := range 3 * limit {
		name := fmt.Sprintf("%d.vmdk", i)
		r.wantForm(name, "clear")
		r.wantRead(name, descriptor)
		if err := os.WriteFile(r.path(name), []byte(secret), 0o644); err != nil {
			t.Fatal(err)
		}
		r.wantRead(name, secret)
		r.wantForm(name, "encrypted")
	}
}

// TestDescriptorLimitOfProcess: lookups go on when the process has no descriptor left.
func TestDescriptorLimitOfProcess(t *testing.T) {
	r := newRig(t, nil)
	for i := range 200 {
		r.plant(fmt.Sprintf("f%d.log", i), "")
	}
	for i := range 100 {
		if _, err := os.Stat(r.path(fmt.Sprintf("f%d.log", i))); err != nil {
			t.Fatal(err)
		}
	}
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		t.Fatal(err)
	}
	low := l
	low.Cur = uint64(openDescriptors(t)) + 5 // those of the test itself
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &low); err != nil {
		t.Fatal(err)
	}
	defer unix.Setrlimit(unix.RLIMIT_NOFILE, &l)
	for i := range 200 {
		if _, err := os.Stat(r.path(fmt.Sprintf("f%d.log", i))); err != nil {
			t.Fatal(err)
		}
	}
}

// TestRemovedWithoutDescriptor: a file whose descriptor was given up and that loses its
// name, by removal or replacement, is there for who has it.
func TestRemovedWithoutDescriptor(t *testing.T) {
	r := newRig(t, nil)
	for _, remove := range []func(name string) error{
		os.Remove,
		func(name string) error { return os.Rename(r.path("other.log"), name) },
	} {
		r.write("a.log", "content")
		r.write("other.log", "other")
		f, err := os.OpenFile(r.path("a.log"), unix.O_PATH, 0)
		if err != nil {
			t.Fatal(err)
		}
		fd := int(f.Fd())
		r.idle()
		r.squeeze(0)
		if err := remove(r.path("a.log")); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(byname.ProcPath(fd), 0o640); err != nil {
			t.Error(err)
		}
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil || st.Nlink != 0 || st.Size != 7 || st.Mode&0o777 != 0o640 {
			t.Errorf("%d links, size %d, mode %o, %v", st.Nlink, st.Size, st.Mode, err)
		}
		f.Close()
	}
}

// TestMovedWithoutDescriptor: a file that other hands rename is found again, and one that
// takes its name is not taken for it.
func TestMovedWithoutDescriptor(t *testing.T) {
	r := newRig(t, nil)
	if err := os.Mkdir(r.path("d"), 0o755); err != nil {
		t.Fatal(err)
	}
	r.write("a.log", "content")
	f := r.open("a.log", unix.O_PATH)
	fd := int(f.Fd())
	r.idle()
	r.squeeze(0)
	if err := os.Rename(r.under("a.log"), r.under("d/b.log")); err != nil {
		t.Fatal(err)
	}
	r.plant("a.log", "another")
	if err := os.Chmod(byname.ProcPath(fd), 0o640); err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(r.under("d/b.log")); err != nil || st.Mode() != 0o640 {
		t.Errorf("moved file: %v, %v", st.Mode(), err)
	}
	if st, err := os.Stat(r.under("a.log")); err != nil || st.Mode() != 0o644 {
		t.Errorf("file in its place: %v, %v", st.Mode(), err)
	}
	r.squeeze(0)
	if err := os.Remove(r.under("d/b.log")); err != nil {
		t.Fatal(err)
	}
	wantErrno(t, "change of a file that is gone", os.Chmod(byname.ProcPath(fd), 0o600), unix.ESTALE)
}

// TestDescriptorsInParallel: whatever is given up meanwhile, nobody gets another file.
func TestDescriptorsInParallel(t *testing.T) {
	r := newRig(t, nil)
	r.squeeze(3)
	for i := range 8 {
		if err := os.Mkdir(r.path(fmt.Sprint(i)), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	var done sync.WaitGroup
	for i := range 8 {
		done.Go(func() {
			for j := range 40 {
				name := filepath.Join(fmt.Sprint((i+j)%8), fmt.Sprintf("%d.log", i))
				if err := os.WriteFile(r.path(name), []byte(name), 0o644); err != nil {
					t.Error(err)
				}
				if got, err := os.ReadFile(r.path(name)); err != nil || string(got) != name {
					t.Errorf("%s holds %q, %v", name, got, err)
				}
				if _, err := os.ReadDir(r.path(fmt.Sprint(j % 8))); err != nil {
					t.Error(err)
				}
			}
		})
	}
	done.Wait()
}

// TestNumberGivenAway: an inode that has the number of another, which is gone, is a node
// of its own, and the kernel's lookups of both are counted under the id that they share.
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
	var tab table
	tab.init(root, &rootStat)
	defer tab.close()
	fd, st := open("a")
	a := tab.enter(fd, &st, 1, tab.root(), "a")
	fd, _ = open("b") // as if it had the number of a
	if b := tab.enter(fd, &st, 2, tab.root(), "b"); b != a {
		t.Fatal("while a keeps its number nobody else can have it")
	}
	tab.fds.mu.Lock()
	closeFDs(tab.fds.surplus(0))
	tab.fds.mu.Unlock()
	fd, _ = open("b")
	b := tab.enter(fd, &st, 2, tab.root(), "b")
	if b == a || b.id != a.id || b.born == a.born || b.lookups != 3 || tab.get(a.id) != b {
		t.Errorf("ids %d %d, generations %d %d, %d lookups", a.id, b.id, a.born, b.born, b.lookups)
	}
	wantErrno(t, "use of a", a.hold(), unix.ESTALE)
	tab.forget(b.id, 3)
	if n := tab.size(); n != 1 {
		t.Errorf("%d nodes are left", n)
	}
}

// TestNodeIDs are BACKING's numbers but for the root's, which is 1.
func TestNodeIDs(t *testing.T) {
	tab := table{rootIno: 77, byID: map[uint64]*node{500: nil}}
	for ino, want := range map[uint64]uint64{77: 1, 1: 77, 5: 5} {
		if got := tab.idOf(ino); got != want || tab.idOf(got) != ino {
			t.Errorf("id of %d is %d, back %d", ino, got, tab.idOf(got))
		}
		if got := tab.freeID(ino); got != want {
			t.Errorf("free id of %d is %d", ino, got)
		}
	}
	tab.byID[500] = &node{}
	for _, ino := range []uint64{0, 500} {
		if id := tab.freeID(ino); id>>63 != 1 {
			t.Errorf("id %d for number %d", id, ino)
		}
	}
}
