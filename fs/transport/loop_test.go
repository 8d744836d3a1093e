package transport

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

const (
	fileNode = 2
	fileSize = 4 << 20
)

// oneFile is a file system with the file "f", fileSize bytes in memory, in its only directory.
// The hooks, if set, run before a read, write or open.
type oneFile struct {
	oneDir
	mu      sync.Mutex // the kernel orders calls invisibly to the race detector
	data    []byte
	onRead  func(cancel <-chan struct{}, in *fuse.ReadIn) fuse.Status
	onWrite func(cancel <-chan struct{}, in *fuse.WriteIn) fuse.Status
	onOpen  func(cancel <-chan struct{}) fuse.Status
}

func newOneFile() *oneFile { return &oneFile{oneDir: newOneDir(), data: make([]byte, fileSize)} }

// set changes the hooks of a served file system.
func (f *oneFile) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

func fileAttr(out *fuse.Attr) {
	*out = fuse.Attr{Ino: fileNode, Mode: unix.S_IFREG | 0o644, Nlink: 1, Size: fileSize, Blocks: fileSize / 512}
}

func (f *oneFile) Lookup(_ <-chan struct{}, _ *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	if name != "f" {
		return fuse.ENOENT
	}
	*out = fuse.EntryOut{NodeId: fileNode}
	fileAttr(&out.Attr)
	return fuse.OK
}

func (f *oneFile) GetAttr(cancel <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	if in.NodeId == fileNode {
		fileAttr(&out.Attr)
		return fuse.OK
	}
	return f.oneDir.GetAttr(cancel, in, out)
}

func (f *oneFile) Open(cancel <-chan struct{}, _ *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	var hook func(<-chan struct{}) fuse.Status
	if f.set(func() { hook = f.onOpen }); hook != nil {
		if s := hook(cancel); s != fuse.OK {
			return s
		}
	}
	out.OpenFlags = fuse.FOPEN_DIRECT_IO | fuse.FOPEN_PARALLEL_DIRECT_WRITES
	return fuse.OK
}

func (f *oneFile) Read(cancel <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	var hook func(<-chan struct{}, *fuse.ReadIn) fuse.Status
	if f.set(func() { hook = f.onRead }); hook != nil {
		if s := hook(cancel, in); s != fuse.OK {
			return nil, s
		}
	}
	if in.Offset >= fileSize {
		return fuse.ReadResultData(nil), fuse.OK
	}
	var n int
	f.set(func() { n = copy(buf, f.data[in.Offset:]) })
	if n == len(buf) {
		return nil, fuse.OK
	}
	return fuse.ReadResultData(buf[:n]), fuse.OK
}

func (f *oneFile) Write(cancel <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	var hook func(<-chan struct{}, *fuse.WriteIn) fuse.Status
	if f.set(func() { hook = f.onWrite }); hook != nil {
		if s := hook(cancel, in); s != fuse.OK {
			return 0, s
		}
	}
	var n int
	f.set(func() { n = copy(f.data[in.Offset:], data) })
	return uint32(n), fuse.OK
}

func (f *oneFile) StatFs(_ <-chan struct{}, _ *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	*out = fuse.StatfsOut{Bsize: pageSize}
	return fuse.OK
}

// Flush and Release, so no test needs to care for a close.
func (f *oneFile) Flush(<-chan struct{}, *fuse.FlushIn) fuse.Status { return fuse.OK }

// rig is a oneFile served by the loop, with "f" open.
type rig struct {
	t    *testing.T
	loop *loop
	dir  string
	file *os.File
	log  *bytes.Buffer
}

func newRig(t *testing.T, f *oneFile) *rig {
	t.Helper()
	r := &rig{t: t, dir: t.TempDir(), log: new(bytes.Buffer)}
	s, err := Serve(r.dir, f, Options{Transport: Loop, Log: slog.New(slog.NewTextHandler(r.log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	r.loop = s.(*loop)
	t.Cleanup(func() {
		if err := unix.Unmount(r.dir, unix.MNT_DETACH); err != nil { // also where the connection is gone
			t.Errorf("unmount: %v", err)
		}
		s.Wait()
	})
	r.file = r.open()
	return r
}

// open opens "f". Closed at the test's end, before the unmount.
func (r *rig) open() *os.File {
	r.t.Helper()
	f, err := os.OpenFile(filepath.Join(r.dir, "f"), os.O_RDWR, 0)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = f.Close() })
	return f
}

// until polls a condition of the loop, called with the loop's lock held.
func (r *rig) until(what string, condition func() bool) {
	r.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
		r.loop.mu.Lock()
		ok := condition()
		r.loop.mu.Unlock()
		switch {
		case ok:
			return
		case time.Now().After(deadline):
			r.t.Fatalf("not within 30 s: %s", what)
		}
	}
}

// TestReadAndWrite: sizes and places around pages and the largest request.
func TestReadAndWrite(t *testing.T) {
	f := newOneFile()
	r := newRig(t, f)
	model := make([]byte, fileSize)
	for i, size := range []int{1, 511, 512, 4095, 4096, 4097, maxWrite - 1, maxWrite, maxWrite + 1, 2*maxWrite + 77} {
		off := i * 1003
		p := bytes.Repeat([]byte{byte(i + 1)}, size)
		copy(model[off:], p)
		if n, err := r.file.WriteAt(p, int64(off)); n != size || err != nil {
			t.Fatalf("write of %d bytes: %d, %v", size, n, err)
		}
		got := make([]byte, size+3)
		if n, err := r.file.ReadAt(got, int64(off)); n != len(got) || err != nil || !bytes.Equal(got, model[off:off+len(got)]) {
			t.Fatalf("read of %d bytes: %d, %v, or other bytes", len(got), n, err)
		}
	}
	if !bytes.Equal(f.data, model) {
		t.Error("the file system was given other bytes")
	}
	got := make([]byte, 4096)
	if n, _ := r.file.ReadAt(got, fileSize-100); n != 100 {
		t.Errorf("read across the end: %d bytes, want 100", n)
	}
}

// TestManySlowRequests: as many as there are places for are under way at once.
func TestManySlowRequests(t *testing.T) {
	const many = mostOthers
	var inside atomic.Int32
	all := make(chan struct{})
	f := newOneFile()
	f.onOpen = func(cancel <-chan struct{}) fuse.Status {
		if inside.Add(1) == many+1 { // the rig's own is the first
			close(all)
		}
		if inside.Load() == 1 {
			return fuse.OK
		}
		<-all
		return fuse.OK
	}
	r := newRig(t, f)
	var wg sync.WaitGroup
	for range many {
		wg.Go(func() {
			f, err := os.Open(filepath.Join(r.dir, "f"))
			if err != nil {
				t.Error(err)
				return
			}
			_ = f.Close()
		})
	}
	wg.Wait()
}

// TestWantOfMemory: without memory for another worker, the loop tries again during the request
// that needed the worker.
func TestWantOfMemory(t *testing.T) {
	const many, failures = maxParked + 2, 3
	tries := 0 // under the loop's lock
	var inside atomic.Int32
	all := make(chan struct{})
	f := newOneFile()
	r := newRig(t, f)
	f.set(func() {
		f.onOpen = func(cancel <-chan struct{}) fuse.Status {
			if inside.Add(1) == many {
				close(all)
			}
			select {
			case <-all:
				return fuse.OK
			case <-cancel:
				return fuse.EINTR
			}
		}
	})
	r.loop.mu.Lock()
	r.loop.newWorker = func() (*worker, error) {
		if tries++; tries <= failures {
			return nil, unix.ENOMEM
		}
		return newWorker()
	}
	r.loop.mu.Unlock()
	var wg sync.WaitGroup
	for range many {
		wg.Go(func() {
			fd, err := unix.Open(r.file.Name(), unix.O_RDONLY, 0)
			for err == unix.EINTR {
				fd, err = unix.Open(r.file.Name(), unix.O_RDONLY, 0)
			}
			if err != nil {
				t.Error(err)
				return
			}
			_ = unix.Close(fd)
		})
	}
	wg.Wait()
	r.until("memory was wanting", func() bool { return tries > failures })
}

// TestHungRead: a read expected to be fast hangs, with another behind. Nobody else waits, and
// both are ended by a signal's interrupt or the unmount.
func TestHungRead(t *testing.T) {
	hung := make(chan struct{}, 2)
	f := newOneFile()
	f.onRead = func(cancel <-chan struct{}, in *fuse.ReadIn) fuse.Status {
		if in.Offset == 0 {
			return fuse.OK
		}
		hung <- struct{}{}
		<-cancel
		return fuse.EINTR
	}
	r := newRig(t, f)
	p := make([]byte, 512)
	for range 50 {
		if _, err := r.file.ReadAt(p, 0); err != nil {
			t.Fatal(err)
		}
	}
	ended := make(chan error, 2)
	for i := range 2 {
		go func() {
			_, err := r.file.ReadAt(make([]byte, 512), int64(4096*(i+1)))
			ended <- err
		}()
		<-hung
		if _, err := r.file.ReadAt(p, 0); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(filepath.Join(r.dir, "f")); err != nil {
			t.Fatal(err)
		}
	}
	abort(t, r.dir)
	for range 2 {
		if err := <-ended; err == nil {
			t.Error("a read that hung when the connection was aborted succeeded")
		}
	}
	r.loop.Wait()
}

// abort ends the connection of the mount at dir, as an administrator does whose mount
// hangs.
func abort(t *testing.T, dir string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(connection(t, dir), "abort"), []byte("1"), 0); err != nil {
		t.Fatal(err)
	}
}

// connection returns the kernel's directory for the connection of the mount at dir.
func connection(t *testing.T, dir string) string {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		t.Fatal(err)
	}
	control := "/sys/fs/fuse/connections"
	if err := unix.Mount("fusectl", control, "fusectl", 0, ""); err != nil && !errors.Is(err, unix.EBUSY) {
		t.Fatal(err)
	}
	return filepath.Join(control, fmt.Sprint(unix.Minor(st.Dev)))
}

// TestInterrupt: a signal to the caller cancels a read by the loop's own way, and an open by
// go-fuse's.
func TestInterrupt(t *testing.T) {
	for _, c := range []struct {
		name string
		hang func(f *oneFile, hook func(cancel <-chan struct{}) fuse.Status)
		call func(dir string) string // a shell command
	}{
		{"read", func(f *oneFile, hook func(<-chan struct{}) fuse.Status) {
			f.onRead = func(cancel <-chan struct{}, _ *fuse.ReadIn) fuse.Status { return hook(cancel) }
		}, func(dir string) string { return "exec head -c 512 " + dir + "/f" }},
		{"write", func(f *oneFile, hook func(<-chan struct{}) fuse.Status) {
			f.onWrite = func(cancel <-chan struct{}, _ *fuse.WriteIn) fuse.Status { return hook(cancel) }
		}, func(dir string) string { return "exec dd conv=notrunc if=/dev/zero count=1 of=" + dir + "/f" }},
		{"open", func(f *oneFile, hook func(<-chan struct{}) fuse.Status) {
			f.onOpen = func(cancel <-chan struct{}) fuse.Status { return hook(cancel) }
		}, func(dir string) string { return "exec head -c 512 " + dir + "/f" }},
	} {
		t.Run(c.name, func(t *testing.T) {
			hung, cancelled := make(chan struct{}), make(chan struct{})
			f := newOneFile()
			r := newRig(t, f)
			f.set(func() {
				c.hang(f, func(cancel <-chan struct{}) fuse.Status {
					close(hung)
					<-cancel
					close(cancelled)
					return fuse.EINTR
				})
			})
			p, err := os.StartProcess("/bin/sh", []string{"sh", "-c", c.call(r.dir) + " >/dev/null 2>&1"}, &os.ProcAttr{})
			if err != nil {
				t.Fatal(err)
			}
			<-hung
			if err := p.Signal(unix.SIGTERM); err != nil {
				t.Error(err)
			}
			<-cancelled
			if _, err := p.Wait(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestPanicIsContained: a bug in one request becomes an error of that request.
func TestPanicIsContained(t *testing.T) {
	f := newOneFile()
	f.onRead = func(_ <-chan struct{}, in *fuse.ReadIn) fuse.Status {
		if in.Offset != 0 {
			panic("a bug")
		}
		return fuse.OK
	}
	r := newRig(t, f)
	p := make([]byte, 512)
	if _, err := r.file.ReadAt(p, 4096); !errors.Is(err, unix.EIO) {
		t.Errorf("%v, want EIO", err)
	}
	if _, err := r.file.ReadAt(p, 0); err != nil {
		t.Errorf("after it: %v", err)
	}
	abort(t, r.dir)
	r.loop.Wait()
	if log := r.log.String(); !strings.Contains(log, "a bug") || !strings.Contains(log, "loop_test.go") {
		t.Errorf("log %q does not tell of the panic and its place", log)
	}
}

// TestUnfitStatus: an error that the kernel does not accept from a file system becomes EIO, and
// leaves nobody waiting.
func TestUnfitStatus(t *testing.T) {
	const notSupported = fuse.Status(524) // ENOTSUPP of Linux's NFS
	f := newOneFile()
	r := newRig(t, f)
	f.set(func() {
		f.onRead = func(<-chan struct{}, *fuse.ReadIn) fuse.Status { return notSupported }
		f.onOpen = func(<-chan struct{}) fuse.Status { return notSupported }
	})
	if _, err := r.file.ReadAt(make([]byte, 512), 0); !errors.Is(err, unix.EIO) {
		t.Errorf("read: %v, want EIO", err)
	}
	if _, err := os.Open(r.file.Name()); !errors.Is(err, unix.EIO) {
		t.Errorf("open: %v, want EIO", err)
	}
}

// TestReinforced: one thread does not stand in the way of the host's other CPUs, and no
// request is lost while workers come and go.
func TestReinforced(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(8))
	var inside, most atomic.Int32
	f := newOneFile()
	f.onRead = func(<-chan struct{}, *fuse.ReadIn) fuse.Status {
		n := inside.Add(1)
		for old := most.Load(); n > old && !most.CompareAndSwap(old, n); old = most.Load() {
		}
		runtime.Gosched()
		inside.Add(-1)
		return fuse.OK
	}
	copy(f.data, bytes.Repeat([]byte("0123456789abcdef"), fileSize/16))
	r := newRig(t, f)
	deadline := time.Now().Add(30 * time.Second)
	for most.Load() < 2 {
		if time.Now().After(deadline) {
			t.Fatal("eight CPUs, and one reader at a time")
		}
		r.readMany(8, 500)
	}
}

// readMany reads n times in each of several goroutines.
func (r *rig) readMany(goroutines, n int) {
	var wg sync.WaitGroup
	for g := range goroutines {
		wg.Go(func() {
			p := make([]byte, 4096)
			for i := range n {
				if _, err := r.file.ReadAt(p, int64((g*131+i)%1000)*4096); err != nil || p[0] != '0' || p[4095] != 'f' {
					r.t.Errorf("read: %v, or other bytes", err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// TestNotifyWhileReading: InodeNotify waits for requests under way, one of them perhaps with the
// calling worker.
func TestNotifyWhileReading(t *testing.T) {
	f := newOneFile()
	r := newRig(t, f)
	f.set(func() {
		f.onRead = func(<-chan struct{}, *fuse.ReadIn) fuse.Status {
			if s := r.loop.InodeNotify(fileNode, 0, 0); s != fuse.OK {
				t.Errorf("notify: %v", s)
			}
			return fuse.OK
		}
	})
	if _, err := r.file.ReadAt(make([]byte, 512), 0); err != nil {
		t.Error(err)
	}
	abort(t, r.dir)
	r.loop.Wait()
	if s := r.loop.InodeNotify(fileNode, 0, 0); s != fuse.ENODEV {
		t.Errorf("notify after the end: %v, want ENODEV", s)
	}
}

// TestHotPathAllocatesNothing: neither a READ nor a WRITE; their callers are in this process too.
func TestHotPathAllocatesNothing(t *testing.T) {
	r := newRig(t, newOneFile())
	fd := int(r.file.Fd())
	p := make([]byte, 4096)
	allocs := testing.AllocsPerRun(200, func() {
		if _, err := unix.Pread(fd, p, 8192); err != nil && err != unix.EINTR {
			t.Error(err)
		}
		if _, err := unix.Pwrite(fd, p, 8192); err != nil && err != unix.EINTR {
			t.Error(err)
		}
	})
	if allocs >= 1 {
		t.Errorf("%v allocations for a read and a write", allocs)
	}
}

// TestNothingIsLeft: no descriptor and no mapping outlives a mount.
func TestNothingIsLeft(t *testing.T) {
	count := func() (descriptors, mappings int) {
		d, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		maps, err := os.ReadFile("/proc/self/maps")
		if err != nil {
			t.Fatal(err)
		}
		size := fmt.Sprintf("%x", 2*regionSize)
		for line := range strings.Lines(string(maps)) {
			var from, to uint64
			if _, err := fmt.Sscanf(line, "%x-%x", &from, &to); err == nil && fmt.Sprintf("%x", to-from) == size {
				mappings++
			}
		}
		return len(d), mappings
	}
	descriptors, mappings := count()
	t.Run("a mount", func(t *testing.T) { newRig(t, newOneFile()).readMany(0, 0) })
	if d, m := count(); d > descriptors || m > mappings {
		t.Errorf("descriptors %d, then %d; workers' memory %d, then %d", descriptors, d, mappings, m)
	}
}

// TestUnreadRequest: a request too large for the reader's memory fails alone and is logged, and
// the next request is read.
func TestUnreadRequest(t *testing.T) {
	r := newRig(t, newOneFile())
	protect := func(how int) {
		for w := range r.loop.workers {
			if err := unix.Mprotect(w.memory, how); err != nil {
				t.Error(err)
			}
		}
	}
	p := make([]byte, 512)
	r.until("one worker sleeps in read(2), the others have no turn", func() bool {
		quiet := r.loop.sleeping == 1 && len(r.loop.parked)+1 == len(r.loop.workers)
		if quiet {
			protect(unix.PROT_NONE)
		}
		return quiet
	})
	if _, err := r.file.ReadAt(p, 0); !errors.Is(err, unix.EIO) {
		t.Errorf("a read that was not read: %v, want EIO", err)
	}
	r.loop.mu.Lock()
	protect(unix.PROT_READ | unix.PROT_WRITE)
	r.loop.mu.Unlock()
	if _, err := r.file.ReadAt(p, 0); err != nil {
		t.Errorf("after it: %v", err)
	}
	abort(t, r.dir)
	r.loop.Wait()
	if log := r.log.String(); strings.Count(log, "could not be read") != 1 {
		t.Errorf("log %q does not tell once of a request that was not read", log)
	}
}
