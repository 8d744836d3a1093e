package fs

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vmcryptfs/fs/backing"
	"vmcryptfs/fs/inode"
	"vmcryptfs/integration/leak"
	"vmcryptfs/layout"
)

// TestTableEmpties: when the kernel forgot everything and nothing is open, only the root is left,
// and no other descriptor.
func TestTableEmpties(t *testing.T) {
	r := newRig(t, nil)
	before := leak.Descriptors(t)
	for i := range 50 {
		dir := fmt.Sprintf("d%d", i)
		if err := os.MkdirAll(r.path(dir+"/e"), 0o755); err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			name = filepath.Join(dir, "e", name)
			r.write(name, descriptor)
			r.wantRead(name, descriptor)
			if err := os.Rename(r.path(name), r.path(name+".old")); err != nil {
				t.Fatal(err)
			}
		}
	}
	tab := &r.fs.table
	if n := tab.Count().Made; n < 250 { // however many the kernel has forgotten already
		t.Errorf("only %d nodes were made: nothing is tested", n)
	}
	// As the kernel does in the end: children before parents.
	r.forgetAll()
	if n := r.fs.table.Count().Inodes; n != 1 {
		t.Errorf("%d nodes are left", n)
	}
	if n := tab.Count(); n.Names != 0 || n.Keys != 1 {
		t.Errorf("%d names and %d keys are left", n.Names, n.Keys)
	}
	if n := r.fs.Stats(); n.OpenFiles != 0 || n.OpenEncrypted != 0 {
		t.Errorf("open: %+v", n)
	}
	// A node is out of the table before its descriptors are closed.
	after := leak.Descriptors(t)
	for deadline := time.Now().Add(2 * time.Minute); after > before && time.Now().Before(deadline); after = leak.Descriptors(t) {
		time.Sleep(time.Millisecond)
	}
	if after > before {
		t.Errorf("%d descriptors, %d before", after, before)
	}
}

// forgetAll makes the kernel forget what it can of the mount. A remount that changes nothing drops
// the names that the kernel knows of this file system, and those of no other.
func (r *rig) forgetAll() {
	r.t.Helper()
	var st unix.Statfs_t
	if err := unix.Statfs(r.mnt, &st); err != nil {
		r.t.Fatal(err)
	}
	const kept = unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC | unix.MS_NOATIME // ST_ and MS_ are the same
	for deadline := time.Now().Add(2 * time.Minute); r.fs.table.Count().Inodes > 1 && time.Now().Before(deadline); {
		if err := unix.Mount("", r.mnt, "", unix.MS_REMOUNT|uintptr(st.Flags)&kept, ""); err != nil {
			r.t.Fatalf("remount: %v", err)
		}
		time.Sleep(time.Millisecond) // for what the kernel sends now
	}
}

// TestOtherFileSystemBelow: inode numbers of a file system mounted below BACKING differ
// from BACKING's own, and files there are encrypted, bound and renamed as others.
func TestOtherFileSystemBelow(t *testing.T) {
	r := newRig(t, nil)
	sub := r.under("sub")
	if err := os.Mkdir(sub, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", sub, "tmpfs", 0, "size=64m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(sub, 0); err != nil {
			t.Errorf("unmount %s: %v", sub, err)
		}
	})
	r.write("sub/a.vmdk", descriptor)
	r.write("sub/b.qcow2", secret)
	r.wantForm("sub/a.vmdk", "clear")
	r.wantForm("sub/b.qcow2", "encrypted")
	r.wantRead("sub/a.vmdk", descriptor)
	r.wantRead("sub/b.qcow2", secret)
	var st unix.Stat_t
	if err := unix.Stat(r.path("sub/b.qcow2"), &st); err != nil || st.Ino>>56 != 1 {
		t.Errorf("inode number %#x, %v", st.Ino, err)
	}
	wantErrno(t, "rename between file systems", os.Rename(r.path("sub/b.qcow2"), r.path("b.qcow2")), unix.EXDEV)
	r.forgetAll() // so that nothing keeps the tmpfs
	r.unmount()
}

// TestUnnamedFallback: where BACKING makes no file without a name, the temporary name is invisible,
// and the new file never replaces another.
func TestUnnamedFallback(t *testing.T) {
	r := newRig(t, nil)
	const temp = layout.ReservedPrefix + "-0-temp"
	for _, taken := range []bool{false, true} {
		name := fmt.Sprintf("file-%v", taken)
		if taken {
			r.write(name, "there")
		}
		r.plant(temp, "new")
		fd, st := openByPath(t, r.under(temp))
		u := &unnamed{dir: r.store.Fd(), temp: temp, key: backing.KeyOf(st)}
		err := publish(u.dir, fd, u.key, temp, name, naming{})
		unix.Close(fd)
		if taken {
			wantErrno(t, "publish over a file", err, unix.EEXIST)
			r.wantRead(name, "there")
			err = u.abandon()
		}
		if err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(r.under(temp)); !os.IsNotExist(err) {
			t.Errorf("the temporary name is left: %v", err)
		}
	}
}

// TestSweep: leftovers of this host go at the next mount; files of others, and those whose owner is
// unknown, stay.
func TestSweep(t *testing.T) {
	r := newRig(t, nil)
	if err := os.MkdirAll(r.under("d/e"), 0o755); err != nil {
		t.Fatal(err)
	}
	ours := r.fs.temps.host + "00112233445566ff-8899aabbccddeeff"
	for _, dir := range []string{".", "d", "d/e"} {
		r.plant(filepath.Join(dir, ours), "left")
		r.plant(filepath.Join(dir, layout.ReservedPrefix+"-ffffffffffffffff-00112233445566ff-8899aabbccddeeff"), "of another host")
		// A move's file, whatever host runs the move, and a file as a later version may make.
		r.plant(filepath.Join(dir, layout.ReservedPrefix+"-move-0b0c0d0e-0f10-4112-9314-15161718191a"), "half of a disk")
		r.plant(filepath.Join(dir, r.fs.temps.host+"new"), "unknown")
	}
	r.plant("d/"+r.fs.temps.mount+"8899aabbccddeeff", "in use")
	if err := r.fs.removeLeftovers(context.Background()); err != nil {
		t.Fatal(err)
	}
	var left []string
	err := filepath.WalkDir(r.backing, func(path string, d os.DirEntry, err error) error {
		if strings.HasPrefix(filepath.Base(path), layout.ReservedPrefix+"-") {
			left = append(left, strings.TrimPrefix(path, r.backing+"/"))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(left) != 3*3+1 || strings.Contains(strings.Join(left, " "), ours) {
		t.Errorf("left: %v", left)
	}
	r.remount()
	r.fs.sweep.stop()
	if _, err := os.Stat(r.under(".vmcryptfs/datastore.toml")); err != nil {
		t.Error(err)
	}
}

func TestCensus(t *testing.T) {
	r := newRig(t, func(_ *layout.Settings, c *Config) { c.Unencrypted = Read })
	r.write("a.log", "log")
	r.write("b.qcow2", "disk")
	r.write("c.vmdk", descriptor)
	r.write("d", "unknown")
	flip(t, r.under("d"), 30)
	r.plant("e.vswp", "")
	r.plant("f.raw", "planted")
	r.plant("g.vmdk", "no descriptor")
	r.plant("h.log", layout.Magic)
	r.plant(".vmcryptfs-x", "hidden")
	if err := os.MkdirAll(r.path("x/y"), 0o755); err != nil {
		t.Fatal(err)
	}
	r.write("x/y/z.nvram", "nvram")
	if err := os.Symlink("a.log", r.path("link")); err != nil {
		t.Fatal(err)
	}
	forms := map[string]string{}
	got, err := r.fs.Census().Take(context.Background(), func(path, form, _ string) { forms[path] = form })
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"a.log": "clear", "b.qcow2": "encrypted", "c.vmdk": "clear", "d": "unsynced", "e.vswp": "empty",
		"f.raw": "unencrypted", "g.vmdk": "unencrypted", "h.log": "damaged", "x/y/z.nvram": "encrypted",
	}
	if fmt.Sprint(forms) != fmt.Sprint(want) {
		t.Errorf("files: %v, want %v", forms, want)
	}
	if got.Encrypted != 3 || got.Clear != 2 || got.Empty != 1 || got.Unencrypted != 2 || got.Damaged != 1 ||
		got.Unsynced != 1 || got.Directories != 2 || got.Other != 1 {
		t.Errorf("census: %+v", got)
	}
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := r.fs.Census().Take(ended, nil); err != context.Canceled {
		t.Errorf("a census that was called off: %v", err)
	}
}

// lookUp looks up name in dir, over and over, until the test ends.
func lookUp(t *testing.T, f *FS, at inode.Place) {
	stop := make(chan struct{})
	var looking sync.WaitGroup
	for range 2 {
		looking.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if n, err := lookedUp(f, at); err == nil {
					f.table.Forget(n.ID, 1)
				}
			}
		})
	}
	t.Cleanup(looking.Wait)
	t.Cleanup(func() { close(stop) })
}

// lookedUp counts a look-up of a name, as the kernel's.
func lookedUp(f *FS, at inode.Place) (*node, error) {
	f.names.RLock()
	defer f.names.RUnlock()
	return f.lookup(at)
}

// known is the file that the table knows by a name, with no look-up under way.
func known(f *FS, at inode.Place) *node {
	f.names.Lock()
	defer f.names.Unlock()
	return f.called(at)
}

// TestLookupBesideRename: the kernel looks up a known name while another file is renamed to it. The
// table then knows the file that has the name.
func TestLookupBesideRename(t *testing.T) {
	r := newRig(t, nil)
	root := r.fs.table.Root()
	at := func(name string) inode.Place { return root.In(name) }
	r.plant("x.log", "")
	lookUp(t, r.fs, at("x.log"))
	for i := range 1000 {
		r.plant("y.log", "")
		moved, err := lookedUp(r.fs, at("y.log"))
		if err != nil {
			t.Fatal(err)
		}
		if err := r.fs.rename(nil, renaming{from: at("y.log"), to: at("x.log")}); err != nil {
			t.Fatal(err)
		}
		is := known(r.fs, at("x.log"))
		r.fs.table.Forget(moved.ID, 1)
		if is != moved {
			t.Fatalf("rename %d: the name is known for another file", i)
		}
	}
}

// TestLookupBesideCreate: the kernel looks up a known name while the name is removed and given to a
// new file.
func TestLookupBesideCreate(t *testing.T) {
	r := newRig(t, nil)
	at := r.fs.table.Root().In("x.log")
	lookUp(t, r.fs, at)
	for i := range 1000 {
		made, err := r.fs.create(nil, creation{dir: nodeOf(at.Dir), name: at.Name, mode: unix.S_IFREG | 0o600})
		if err != nil {
			t.Fatal(err)
		}
		is := known(r.fs, at)
		if err := r.fs.release(made, true); err != nil {
			t.Fatal(err)
		}
		r.fs.table.Forget(made.ID, 1)
		if is != made {
			t.Fatalf("file %d: the name is not known for it", i)
		}
		if err := r.fs.removeName(at, 0); err != nil {
			t.Fatal(err)
		}
	}
}

// openByPath opens a path as the table's descriptors are opened; the table takes the descriptor
// over.
func openByPath(t *testing.T, path string) (int, *unix.Stat_t) {
	t.Helper()
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		t.Fatal(err)
	}
	return fd, &st
}
