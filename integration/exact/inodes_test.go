package exact

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"vmcryptfs/integration/tally"
)

// TestInodes: numbers, kinds, links, births and sizes of a tree survive a remount, and
// directories list stat's numbers.
func TestInodes(t *testing.T) {
	t.Parallel()
	o := newOracle(t)
	w := &witness{t: t, dir: o.d.Mnt, ext: ".img"}
	for _, dir := range []string{"a", "a/b", "c"} {
		w.must(os.Mkdir(w.path(dir), 0o755))
	}
	descriptor := "# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\ncreateType=\"monolithicFlat\"\n"
	for name, content := range map[string]string{"a/x.img": "disk", "a/b/y.log": "log", "c/d.vmdk": descriptor, "c/e.vmdk": "KDMV", "empty": ""} {
		w.create(w.path(name), content, 0o644)
	}
	w.must(unix.Link(w.path("a/x.img"), w.path("c/z.img")))
	w.must(unix.Symlink("nowhere", w.path("link")))
	w.must(unix.Mkfifo(w.path("fifo"), 0o644))
	o.d.Remount() // converted files take their new numbers now
	before := describeTree(w)
	if before["/a/x.img"].Ino != before["/c/z.img"].Ino || before["/a/x.img"].Nlink != 2 {
		t.Errorf("two names of one file: %+v, %+v", before["/a/x.img"], before["/c/z.img"])
	}
	o.d.Remount()
	if diff := cmp.Diff(before, describeTree(w)); diff != "" {
		t.Errorf("-before +after the remount:\n%s", diff)
	}
	tally.Add(t, "operations compared", len(before))
}

// identity is the lasting part of a file.
type identity struct {
	Ino, Nlink, Size, Blocks uint64
	Mode                     uint32
	Birth, Changed           int64
}

// describeTree stats everything, with the number listed by the directory.
func describeTree(w *witness) map[string]identity {
	found := map[string]identity{}
	w.must(filepath.WalkDir(w.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Statx_t
		w.must(unix.Statx(unix.AT_FDCWD, path, unix.AT_SYMLINK_NOFOLLOW, unix.STATX_ALL, &st))
		if st.Mask&unix.STATX_BTIME == 0 {
			w.t.Errorf("%s: statx tells no time of birth", path)
		}
		found[path[len(w.dir):]] = identity{
			Ino: st.Ino, Nlink: uint64(st.Nlink), Size: st.Size, Blocks: st.Blocks, Mode: uint32(st.Mode),
			Birth: st.Btime.Sec*1e9 + int64(st.Btime.Nsec), Changed: st.Ctime.Sec*1e9 + int64(st.Ctime.Nsec),
		}
		if !d.IsDir() {
			return nil
		}
		for name, ino := range listedNumbers(w, path) {
			var st unix.Stat_t
			w.must(unix.Lstat(path+"/"+name, &st))
			if path != w.dir && st.Ino != ino || name != ".." && st.Ino != ino {
				w.t.Errorf("%s/%s: %d in the list, %d by stat", path, name, ino, st.Ino)
			}
		}
		return nil
	}))
	return found
}

// TestSpace compares blocks of sparse files and the disk's report of its space.
func TestSpace(t *testing.T) {
	t.Parallel()
	o := newOracle(t)
	o.compare(t, []check{{"sparse", (*witness).sparseBlocks}, {"statx", (*witness).statxFields}})
	var mount, disk unix.Statfs_t
	for path, st := range map[string]*unix.Statfs_t{o.d.Mnt: &mount, o.d.Backing: &disk} {
		if err := unix.Statfs(path, st); err != nil {
			t.Fatal(err)
		}
	}
	type room struct {
		Blocks, Bfree, Bavail, Files, Ffree uint64
		Bsize, Namelen, Frsize              int64
	}
	of := func(s unix.Statfs_t) room {
		return room{s.Blocks, s.Bfree, s.Bavail, s.Files, s.Ffree, s.Bsize, s.Namelen, s.Frsize}
	}
	if diff := cmp.Diff(of(disk), of(mount)); diff != "" {
		t.Errorf("statfs: -disk +mount:\n%s", diff)
	}
}

// sparseBlocks: a file's space grows and shrinks as on the disk, except in the first MiB of an
// encrypted file, whose first blocks hold the header.
func (w *witness) sparseBlocks() {
	f, err := os.Create(w.file("file"))
	w.must(err)
	fd := int(f.Fd())
	settle := func() uint64 {
		w.must(f.Sync()) // blocks are given when data is written to the disk
		var st unix.Stat_t
		w.must(unix.Fstat(fd, &st))
		return uint64(st.Blocks) * 512
	}
	empty := settle()
	saw := func(what string) {
		taken := int64(settle()) - int64(empty)
		w.saw("%s: about %d MiB", what, (taken+1<<19)>>20) // extents need a block now and then
	}
	w.must(f.Truncate(1 << 30))
	saw("a hole of 1 GiB")
	for _, off := range []int64{0, 100 << 20, 1<<30 - 4<<20} {
		_, err := f.WriteAt(make([]byte, 4<<20), off)
		w.must(err)
		saw(fmt.Sprintf("4 MiB of zeros written at %d", off))
	}
	allocate := func(mode uint32, off, n int64) {
		w.tried(fmt.Sprintf("fallocate %#x", mode), unix.Fallocate(fd, mode, off, n))
		saw("then")
	}
	allocate(unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 101<<20, 2<<20)
	allocate(0, 300<<20, 16<<20)
	allocate(unix.FALLOC_FL_KEEP_SIZE, 1<<30, 8<<20)
	allocate(unix.FALLOC_FL_ZERO_RANGE, 100<<20, 8<<20)
	w.must(f.Truncate(200 << 20))
	saw("shortened")
	w.must(f.Truncate(0))
	saw("emptied")
	w.must(f.Close())
}

// statxFields: the fields returned, for each kind.
func (w *witness) statxFields() {
	for _, path := range w.things() {
		var st unix.Statx_t
		w.tried("statx", unix.Statx(unix.AT_FDCWD, path, unix.AT_SYMLINK_NOFOLLOW|unix.AT_STATX_FORCE_SYNC, unix.STATX_BASIC_STATS|unix.STATX_BTIME, &st))
		w.saw("%s: mask %#x mode %o links %d block %d device %d:%d", path[len(w.dir):], st.Mask&(unix.STATX_BASIC_STATS|unix.STATX_BTIME),
			st.Mode, st.Nlink, st.Blksize, st.Rdev_major, st.Rdev_minor)
		w.saw("born before changed: %v", st.Btime.Sec <= st.Ctime.Sec && st.Btime.Sec > 0)
	}
}
