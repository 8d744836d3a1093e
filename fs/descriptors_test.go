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
	r.fs.table.LimitIdle(limit)
}

// TestFewDescriptors: more files and directories are known than descriptors may be open, and all
// work.
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
	if known, open := r.fs.table.Count().Inodes, r.fs.table.Count().Descriptors; known < 10*limit || open > limit {
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

// TestFewDescriptorsForConverted: converted files, with two backing inodes each, keep no more
// descriptors.
func TestFewDescriptorsForConverted(t *testing.T) {
	r := newRig(t, nil)
	const limit = 10
	r.squeeze(limit)
	for i := range 3 * limit {
		r.write(fmt.Sprintf("%d.vmdk", i), descriptor)
	}
	r.idle()
	if open := r.fs.table.Count().Descriptors; open > limit {
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

// TestRemovedWithoutDescriptor: a file whose descriptor was given up, and whose name is then
// removed or replaced, is still there for its callers.
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

// TestMovedWithoutDescriptor: a file renamed by other hands is found again, and a file under the
// old name is not taken for the renamed one.
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

// TestDescriptorsInParallel: whatever is given up meanwhile, no caller gets another file.
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
