package fs

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"vmcryptfs/layout"
)

// watcher watches BACKING, as programs do that copy files written by others.
type watcher struct {
	t  *testing.T
	fd int
}

func watchDir(t *testing.T, dir string, mask uint32) *watcher {
	t.Helper()
	fd, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if _, err := unix.InotifyAddWatch(fd, dir, mask); err != nil {
		t.Fatal(err)
	}
	return &watcher{t, fd}
}

// seen are the names with events since the last call.
func (w *watcher) seen() (names []string) {
	w.t.Helper()
	buf := make([]byte, 1<<16)
	n, err := unix.Read(w.fd, buf)
	if err != nil && !errors.Is(err, unix.EAGAIN) {
		w.t.Fatal(err)
	}
	for buf = buf[:max(n, 0)]; len(buf) >= unix.SizeofInotifyEvent; {
		end := unix.SizeofInotifyEvent + binary.NativeEndian.Uint32(buf[12:])
		names = append(names, string(bytes.TrimRight(buf[unix.SizeofInotifyEvent:end], "\x00")))
		buf = buf[end:]
	}
	return names
}

// plenty are files of every form, made through the mount.
func (r *rig) plenty() []string {
	r.write("a.qcow2", strings.Repeat("x", 10000))
	r.write("b.log", "begun\n")
	r.write("c.vmdk", descriptor)
	r.write("d.log", "")
	r.plant("e.qcow2", "")
	r.idle()
	return []string{"a.qcow2", "b.log", "c.vmdk", "d.log", "e.qcow2"}
}

// look reads all files and their attributes in every way that writes nothing.
func (r *rig) look(names []string) {
	r.t.Helper()
	for _, name := range names {
		direct, err := os.OpenFile(r.path(name), os.O_RDONLY|unix.O_DIRECT, 0)
		if err != nil {
			r.t.Fatal(err)
		}
		if _, err := direct.ReadAt(aligned(4096), 0); err != nil && !errors.Is(err, io.EOF) {
			r.t.Errorf("read %s: %v", name, err)
		}
		direct.Close()
		r.read(name)
		if _, err := os.Stat(r.path(name)); err != nil {
			r.t.Error(err)
		}
	}
	if _, err := r.fs.Census().Take(context.Background(), nil); err != nil {
		r.t.Error(err)
	}
	r.idle()
}

// TestReadersOpenForReading: a watcher of BACKING is told of an end of writing if, and only if, a
// holder that may write has gone, with others there or not.
func TestReadersOpenForReading(t *testing.T) {
	r := newRig(t, nil)
	names := r.plenty()
	w := watchDir(t, r.backing, unix.IN_CLOSE_WRITE)
	r.look(names)
	if seen := w.seen(); len(seen) > 0 {
		t.Errorf("files that were read alone are told as written: %q", seen)
	}
	for _, name := range names[:3] {
		reader := r.open(name, os.O_RDONLY)
		if _, err := reader.Read(make([]byte, 1)); err != nil {
			t.Error(err)
		}
		writer := r.open(name, os.O_WRONLY)
		if _, err := writer.WriteAt([]byte("#"), 0); err != nil {
			t.Errorf("write %s beside a reader: %v", name, err)
		}
		if seen := w.seen(); len(seen) > 0 {
			t.Errorf("%q are told as written while %s is open", seen, name)
		}
		writer.Close()
		r.until("the writer's close is told", func() bool { return len(w.seen()) > 0 })
		got := make([]byte, 3)
		if _, err := reader.ReadAt(got, 0); err != nil || got[0] != '#' {
			t.Errorf("%s is read as %q, %v, after the writer has gone", name, got, err)
		}
		if err := os.Truncate(r.path(name), 3); err != nil {
			t.Errorf("truncate %s beside a reader: %v", name, err)
		}
		reader.Close()
		r.idle()
		w.seen()
	}
}

// TestExchangedDescriptor: everything of an open file outlives the exchange of its descriptor: the
// key, the direct way to BACKING, access times, reads under way.
func TestExchangedDescriptor(t *testing.T) {
	r := newRigAt(t, sectorDisk(t, 512, "mkfs.ext4", "-q"), nil)
	const size = 1 << 20
	r.write("a.qcow2", strings.Repeat("x", size))
	r.idle()
	r.dropKeys()
	direct := r.open("a.qcow2", os.O_RDONLY|unix.O_DIRECT)
	gets := r.kms.gets.Load()
	stop, reads := make(chan struct{}), make(chan error, 1)
	go func() {
		p := aligned(64 << 10)
		for off := int64(0); ; off = (off + int64(len(p))) % size {
			select {
			case <-stop:
				reads <- nil
				return
			default:
			}
			if n, err := direct.ReadAt(p, off); err != nil || n < len(p) || p[512] != 'x' {
				reads <- errors.Join(errors.New("a read under way was cut off"), err)
				return
			}
		}
	}()
	p := aligned(512)
	copy(p, bytes.Repeat([]byte("y"), len(p)))
	for range 50 {
		w, err := os.OpenFile(r.path("a.qcow2"), os.O_WRONLY|unix.O_DIRECT, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.WriteAt(p, 0); err != nil {
			t.Error(err)
		}
		w.Close()
	}
	close(stop)
	if err := <-reads; err != nil {
		t.Error(err)
	}
	if n := r.kms.gets.Load() - gets; n > 0 {
		t.Errorf("the key was fetched %d times more", n)
	}
	r.uncache("a.qcow2")
	if _, err := direct.ReadAt(aligned(64<<10), 64<<10); err != nil {
		t.Error(err)
	}
	if pages := r.cached("a.qcow2"); permitsBuffers(t, r.under("a.qcow2")) > 0 && pages > 0 {
		t.Errorf("the reader's way around BACKING's page cache is gone: %d pages", pages)
	}
	direct.Close()
	r.unmount()
}

// TestOverlay: reads through the mount copy nothing up in overlayfs; writes copy the written files
// up, and work as everywhere.
func TestOverlay(t *testing.T) {
	r := newRigAt(t, sectorDisk(t, 512, "mkfs.ext4", "-q"), nil)
	names := r.plenty()
	r.unmount()
	lower, dir := r.backing, filepath.Dir(r.backing)
	upper, work := filepath.Join(dir, "upper"), filepath.Join(dir, "work")
	r.backing = filepath.Join(dir, "merged")
	for _, d := range []string{upper, work, r.backing} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	run(t, "mount", "-t", "overlay", "-o", "lowerdir="+lower+",upperdir="+upper+",workdir="+work, "overlay", r.backing)
	t.Cleanup(func() { run(t, "umount", r.backing) })
	r.state = filepath.Join(dir, "state2")
	r.mount()
	r.look(names)
	if got := filesBelow(t, upper); len(got) > 0 {
		t.Errorf("read alone, and copied up: %q", got)
	}
	for _, name := range names[:3] {
		reader := r.open(name, os.O_RDONLY)
		before := r.read(name)
		f := r.open(name, os.O_RDWR)
		if _, err := f.WriteAt([]byte("#"), 0); err != nil {
			t.Errorf("write %s: %v", name, err)
		}
		f.Close()
		got, err := io.ReadAll(reader)
		if err != nil || string(got) != "#"+before[1:] {
			t.Errorf("%s is read as %.20q, %v, by who had it open before it was copied up", name, got, err)
		}
		reader.Close()
		r.idle()
		r.wantRead(name, "#"+before[1:])
	}
	if got := filesBelow(t, upper); len(got) != 3 {
		t.Errorf("three files were written; copied up are %q", got)
	}
	r.unmount()
}

// filesBelow are the regular files in a directory and below it, but for the program's own.
func filesBelow(t *testing.T, dir string) (found []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() && !strings.Contains(path, "/.vmcryptfs/") {
			found = append(found, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// TestAppendOnly: files to which chattr +a permits appends alone.
func TestAppendOnly(t *testing.T) {
	var log lines
	r := newRigAt(t, sectorDisk(t, 512, "mkfs.ext4", "-q"), func(_ *layout.Settings, c *Config) { c.Log = slog.New(slog.NewTextHandler(&log, nil)) })
	names := r.plenty()
	for _, name := range names {
		run(t, "chattr", "+a", r.under(name))
		t.Cleanup(func() { run(t, "chattr", "-a", r.under(name)) })
	}
	for _, name := range []string{"b.log", "d.log"} {
		reader := r.open(name, os.O_RDONLY)
		f := r.open(name, os.O_WRONLY|os.O_APPEND)
		before := r.read(name)
		for range 20 { // the other one at BACKING
			appendTo(t, r.under(name), "there\n")
			if _, err := f.Write([]byte("here\n")); err != nil {
				t.Fatalf("append to %s: %v", name, err)
			}
		}
		want := before + strings.Repeat("there\nhere\n", 20)
		if b, err := os.ReadFile(r.under(name)); err != nil || string(b) != want {
			t.Errorf("%s holds %q, %v", name, b, err)
		}
		r.until("it is read so", func() bool { return r.read(name) == want })
		_, err := unix.FcntlInt(f.Fd(), unix.F_SETFL, 0)
		wantErrno(t, "fcntl", err, 0)
		_, err = unix.Pwrite(int(f.Fd()), []byte("X"), 0)
		wantErrno(t, "write in the middle", err, unix.EPERM)
		wantErrno(t, "truncate", f.Truncate(1), unix.EPERM)
		wantErrno(t, "open to write anywhere", openFor(r.path(name), os.O_WRONLY, readSome), unix.EPERM)
		reader.Close()
		f.Close()
		r.idle()
	}
	for _, name := range []string{"a.qcow2", "c.vmdk"} {
		before := r.read(name)
		_, err := os.OpenFile(r.path(name), os.O_WRONLY|os.O_APPEND, 0)
		wantErrno(t, "append to "+name, err, unix.EPERM)
		if log.with("file="+name+` error="append-only in BACKING`) != 1 {
			t.Errorf("the log does not say once why %s is refused:\n%s", name, &log.text)
		}
		r.wantRead(name, before)
	}
	r.idle()
	r.unmount()
}

func appendTo(t *testing.T, path, text string) {
	t.Helper()
	err := openFor(path, os.O_WRONLY|os.O_APPEND, func(f *os.File) error {
		_, err := f.WriteString(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestImmutable: files that chattr +i makes read-only are read.
func TestImmutable(t *testing.T) {
	r := newRigAt(t, sectorDisk(t, 512, "mkfs.ext4", "-q"), nil)
	for _, name := range r.plenty()[:3] {
		run(t, "chattr", "+i", r.under(name))
		t.Cleanup(func() { run(t, "chattr", "-i", r.under(name)) })
		reader := r.open(name, os.O_RDONLY)
		r.read(name)
		for _, flags := range []int{os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_APPEND} {
			_, err := os.OpenFile(r.path(name), flags, 0)
			wantErrno(t, "open "+name, err, unix.EPERM)
		}
		r.read(name)
		reader.Close()
	}
	r.idle()
	r.unmount()
}
