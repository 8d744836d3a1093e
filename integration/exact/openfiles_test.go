package exact

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"vmcryptfs/integration/mounttest"
	"vmcryptfs/integration/tally"
)

// TestOpenFiles compares the fate of open files: without a name, before having one, and in use by
// two.
func TestOpenFiles(t *testing.T) {
	t.Parallel()
	newOracle(t).compare(t, []check{
		{"unlinked", (*witness).unlinkedFile},
		{"removed directory", (*witness).removedDirectory},
		{"unnamed", (*witness).unnamedFile},
		{"positions", (*witness).positions},
		{"flags", (*witness).openFlags},
		{"limits", (*witness).limits},
	})
}

// unlinkedFile goes on with a file whose names are taken away one by one.
func (w *witness) unlinkedFile() {
	path, second := w.file("file"), w.file("second")
	w.create(path, "content", 0o644)
	w.must(unix.Link(path, second))
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	w.must(err)
	w.tried("unlink", unix.Unlink(path))
	w.state("one name", f)
	w.tried("unlink", unix.Unlink(second))
	w.state("no name", f)
	w.listing()
	_, err = f.WriteAt(bytes.Repeat([]byte("x"), 10000), 5)
	w.tried("write", err)
	w.tried("truncate", f.Truncate(20000))
	w.tried("allocate", mounttest.Uninterrupted(func() error { return unix.Fallocate(int(f.Fd()), 0, 0, 30000) }))
	w.tried("chmod", f.Chmod(0o600))
	w.tried("chown", f.Chown(5, 6))
	w.tried("attribute", unix.Fsetxattr(int(f.Fd()), "user.a", []byte("1"), 0))
	w.tried("times", unix.Futimes(int(f.Fd()), []unix.Timeval{{Sec: 1}, {Sec: 2}}))
	w.tried("sync", f.Sync())
	w.state("changed", f)
	w.create(path, "another", 0o644)
	w.state("another of its name", f)
	w.tried("link", unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", f.Fd()), unix.AT_FDCWD, second, unix.AT_SYMLINK_FOLLOW))
	w.tried("close", f.Close())
	w.listing()
}

// state writes down a descriptor's state and content.
func (w *witness) state(what string, f *os.File) {
	var st unix.Stat_t
	w.must(unix.Fstat(int(f.Fd()), &st))
	got, err := io.ReadAll(io.NewSectionReader(f, 0, 1<<20))
	w.saw("%s: mode %o owner %d:%d links %d size %d mtime %v, reads %d: %.9q %s", what, st.Mode, st.Uid, st.Gid, st.Nlink, st.Size,
		st.Mtim.Sec == 2, len(got), got, errnoName(err))
}

// removedDirectory continues in a removed directory.
func (w *witness) removedDirectory() {
	w.must(os.MkdirAll(w.path("dir/sub"), 0o755))
	fd, err := mounttest.Open(w.path("dir/sub"), unix.O_RDONLY|unix.O_DIRECTORY, 0)
	w.must(err)
	w.tried("rmdir", unix.Rmdir(w.path("dir")))
	w.tried("rmdir", unix.Rmdir(w.path("dir/sub")))
	var st unix.Stat_t
	w.tried("stat", unix.Fstat(fd, &st))
	w.saw("links %d", st.Nlink)
	made, err := unix.Openat(fd, "new"+w.ext, unix.O_CREAT|unix.O_RDWR|unix.O_CLOEXEC, 0o644)
	w.tried("create", err)
	if err == nil {
		w.must(unix.Close(made))
	}
	w.tried("mkdir", unix.Mkdirat(fd, "new", 0o755))
	w.tried("link", unix.Linkat(unix.AT_FDCWD, w.path("dir"), fd, "new", 0))
	w.tried("rename", unix.Renameat(unix.AT_FDCWD, w.path("dir"), fd, "new"))
	_, err = unix.Getdents(fd, make([]byte, 4096))
	w.tried("list", err)
	w.tried("chmod", unix.Fchmod(fd, 0o700))
	w.tried("close", unix.Close(fd))
}

// unnamedFile makes files with O_TMPFILE and gives names to some.
func (w *witness) unnamedFile() {
	for _, flags := range []int{unix.O_RDWR, unix.O_WRONLY, unix.O_RDONLY, unix.O_RDWR | unix.O_EXCL, unix.O_RDWR | unix.O_CREAT} {
		for _, mode := range []uint32{0o640, 0o4755, 0} {
			fd, err := mounttest.Open(w.dir, unix.O_TMPFILE|flags, mode)
			if !w.tried(fmt.Sprintf("unnamed, flags %#x, mode %o", flags, mode), err) {
				continue
			}
			var st unix.Stat_t
			w.must(unix.Fstat(fd, &st))
			w.saw("mode %o links %d size %d", st.Mode, st.Nlink, st.Size)
			_, err = unix.Write(fd, []byte("written without a name"))
			w.tried("write", err)
			proc := fmt.Sprintf("/proc/self/fd/%d", fd)
			for _, name := range []string{"named", "named", "twice"} {
				w.tried("link", mounttest.Uninterrupted(func() error {
					return unix.Linkat(unix.AT_FDCWD, proc, unix.AT_FDCWD, w.file(name), unix.AT_SYMLINK_FOLLOW)
				}))
			}
			w.must(unix.Close(fd))
			for _, name := range []string{"named", "twice"} {
				w.look(name, w.file(name))
				text, err := os.ReadFile(w.file(name))
				w.saw("%q %s", text, errnoName(err))
				w.must(os.RemoveAll(w.file(name)))
			}
			w.listing()
		}
	}
}

// positions: reads and writes at and beyond the end, and descriptors sharing a position.
func (w *witness) positions() {
	f, err := os.OpenFile(w.file("file"), os.O_RDWR|os.O_CREATE, 0o644)
	w.must(err)
	fd := int(f.Fd())
	twin, err := unix.Dup(fd)
	w.must(err)
	w.must(f.Truncate(10000))
	_, err = f.WriteAt([]byte("data"), 5000)
	w.must(err)
	for _, off := range []int64{-1, 0, 4999, 5000, 9999, 10000, 10001, 1 << 40} {
		n, err := unix.Pread(fd, make([]byte, 100), off)
		w.saw("read at %d: %d %s", off, n, errnoName(err))
		_, err = unix.Seek(twin, off, unix.SEEK_SET)
		w.saw("seek to %d: %s", off, errnoName(err))
		if err == nil {
			at, err := unix.Seek(fd, 0, unix.SEEK_CUR)
			w.saw("now at %d %s", at, errnoName(err))
		}
		for _, whence := range []int{unix.SEEK_END, unix.SEEK_CUR, 17} {
			at, err := unix.Seek(fd, off-10000, whence)
			w.saw("seek by %d from %d: %d %s", off-10000, whence, at, errnoName(err))
		}
		_, err = unix.Seek(fd, off, unix.SEEK_DATA)
		w.saw("is there data after %d: %s", off, errnoName(err))
		_, err = unix.Seek(fd, off, unix.SEEK_HOLE)
		w.saw("is there a hole after %d: %s", off, errnoName(err))
	}
	for _, to := range []int64{1 << 62, 1<<63 - 1<<20, 1<<63 - 5, -1} {
		n, err := unix.CopyFileRange(fd, new(int64), fd, &to, 10, 0)
		w.saw("copy to %d: %d %s", to, n, errnoName(err))
	}
	n, err := unix.Readv(fd, [][]byte{make([]byte, 10), nil, make([]byte, 20)})
	w.saw("readv: %d %s", n, errnoName(err))
	n, err = unix.Pwritev(fd, [][]byte{[]byte("one"), nil, []byte("three")}, 9998)
	w.saw("pwritev: %d %s", n, errnoName(err))
	w.state("end", f)
	w.must(unix.Close(twin))
	w.must(f.Close())
}

// openFlags: refusals of each kind of descriptor.
func (w *witness) openFlags() {
	path := w.file("file")
	w.create(path, strings.Repeat("content ", 1000), 0o644)
	for _, flags := range []int{unix.O_RDONLY, unix.O_WRONLY, unix.O_RDWR, unix.O_PATH, unix.O_RDWR | unix.O_APPEND, unix.O_WRONLY | unix.O_SYNC,
		unix.O_RDWR | unix.O_DSYNC, unix.O_RDWR | unix.O_DIRECT, unix.O_RDONLY | unix.O_NOATIME, 3} {
		fd, err := mounttest.Open(path, flags, 0)
		if !w.tried(fmt.Sprintf("open %#x", flags), err) {
			continue
		}
		got, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
		w.saw("flags %#x %s", got, errnoName(err))
		b := aligned(4096)
		for what, call := range []func() error{
			func() error { _, err := unix.Pread(fd, b, 0); return err },
			func() error { _, err := unix.Pwrite(fd, b, 0); return err },
			func() error { return unix.Ftruncate(fd, 8000) },
			func() error { return unix.Fallocate(fd, 0, 0, 4096) },
			func() error { return unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE, 0, 4096) },
			func() error { return unix.Fallocate(fd, 0, -1, 4096) },
			func() error { return unix.Fallocate(fd, 0, 0, 0) },
			func() error { return unix.Fsync(fd) },
			func() error { return unix.Fchmod(fd, 0o644) },
			func() error { return unix.Fchown(fd, 0, 0) },
			func() error { return unix.Fsetxattr(fd, "user.a", nil, 0) },
			func() error { return unix.Fstatfs(fd, new(unix.Statfs_t)) },
			func() error { _, err := unix.Getdents(fd, b); return err },
			func() error { _, err := unix.Mmap(fd, 0, 4096, unix.PROT_READ, unix.MAP_SHARED); return err },
			func() error { _, err := unix.Mmap(fd, 0, 4096, unix.PROT_WRITE, unix.MAP_SHARED); return err },
			func() error { _, err := unix.CopyFileRange(fd, new(int64), fd, new(int64), 10, 0); return err },
			func() error { _, err := unix.CopyFileRange(fd, new(int64), fd, new(int64), 10, 1); return err },
			func() error { return unix.Fadvise(fd, 0, 0, unix.FADV_DONTNEED) },
			func() error { return unix.SyncFileRange(fd, 0, 0, 2) },
		} {
			w.tried(fmt.Sprintf("call %d", what), mounttest.Uninterrupted(call))
		}
		w.must(unix.Close(fd))
		w.look("afterwards", path)
	}
}

// limits: a file as long as the process may make one.
func (w *witness) limits() {
	f, err := os.Create(w.file("file"))
	w.must(err)
	for _, size := range []int64{-1, 1 << 40, 1 << 43, 1 << 44, 1<<63 - 1} {
		w.tried(fmt.Sprintf("truncate to %d", size), unix.Ftruncate(int(f.Fd()), size))
		_, err := unix.Pwrite(int(f.Fd()), []byte("x"), size)
		w.tried("write there", err)
		var st unix.Stat_t
		w.must(unix.Fstat(int(f.Fd()), &st))
		w.saw("size %d", st.Size)
	}
	w.must(f.Close())
}

// TestAppend lets two openers, in buffered and in direct mode, append records to one file
// at once: none may overwrite another.
func TestAppend(t *testing.T) {
	t.Parallel()
	d := mounttest.New(t)
	const each = 300
	for _, c := range []struct {
		name    string
		record  int
		flags   int
		openers int
	}{
		{"log.log", 61, 0, 2}, {"disk.img", 61, 0, 2}, {"direct.img", 512, unix.O_DIRECT, 2}, {"many.img", 4096, 0, 6},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			errs := make([]error, c.openers)
			var all sync.WaitGroup
			for i := range c.openers {
				all.Go(func() { errs[i] = appendRecords(d.Path(c.name), c.flags, i, c.record, each) })
			}
			all.Wait()
			if err := errors.Join(errs...); err != nil {
				t.Fatal(err)
			}
			d.WantForms(map[string]string{c.name: map[bool]string{true: "clear", false: "encrypted"}[strings.HasSuffix(c.name, ".log")]})
			got := d.Read(c.name)
			next := make([]int, c.openers)
			for ; len(got) >= c.record; got = got[c.record:] {
				by := int(got[0] - 'a')
				if by < 0 || by >= c.openers || !bytes.Equal(got[:c.record], record(by, next[by], c.record)) {
					t.Fatalf("record %.20q, %v were there before", got, next)
				}
				next[by]++
			}
			for by, n := range next {
				if n != each || len(got) != 0 {
					t.Errorf("%d records of opener %d, want %d; %d bytes left over", n, by, each, len(got))
				}
			}
			tally.Add(t, "operations compared", each*c.openers)
		})
	}
}

// record is the nth of an opener.
func record(by, n, size int) []byte {
	b := aligned(size)
	copy(b, fmt.Sprintf("%c %06d ", 'a'+by, n))
	for i := 9; i < size; i++ {
		b[i] = byte('a' + by)
	}
	return b
}

func appendRecords(path string, flags, by, size, n int) error {
	fd, err := mounttest.Open(path, unix.O_WRONLY|unix.O_CREAT|unix.O_APPEND|flags, 0o644)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	for i := range n {
		if done, err := unix.Write(fd, record(by, i, size)); err != nil || done != size {
			return fmt.Errorf("append %d of %d: %d bytes, %w", i, by, done, err)
		}
	}
	return nil
}
