package transport

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// floodCommand as the first argument makes this test's program a caller of floods: each call
// takes up a thread of the caller, and the serving program must not die of the flood.
const floodCommand = "flood"

// flood is many equal calls at once, by another process.
type flood struct {
	Call  string // "write" or "open"
	Path  string
	Calls int
	Size  int // of a write
	First int // the first write is number First, and begins with the number
	Flags int // of open(2)
}

func (f flood) call(i int, fd int, p []byte) error {
	if f.Call == "open" {
		fd, err := unix.Open(f.Path, f.Flags, 0)
		if err == nil {
			err = unix.Close(fd)
		}
		return err
	}
	off := int64(i*f.Size) % fileSize
	n, err := unix.Pwrite(fd, p, off)
	if err == nil && n != len(p) {
		err = fmt.Errorf("%d of %d bytes written", n, len(p))
	}
	return err
}

// floodMain is the caller's process and prints how many calls succeeded.
func floodMain(args []string) {
	var f flood
	if err := json.Unmarshal([]byte(args[0]), &f); err != nil {
		panic(err)
	}
	debug.SetMaxThreads(f.Calls + 1000)
	fd := -1
	if f.Call == "write" {
		var err error
		if fd, err = unix.Open(f.Path, f.Flags, 0); err != nil {
			panic(err)
		}
	}
	memory, err := unix.Mmap(-1, 0, f.Size+4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		panic(err)
	}
	var succeeded atomic.Int32
	var calls sync.WaitGroup
	for i := range f.Calls {
		calls.Go(func() {
			p := memory[:f.Size]
			if f.Call == "write" && f.Size < pageSize { // the written bytes identify the caller
				p = binary.NativeEndian.AppendUint64(nil, uint64(f.First+i))
				p = append(p, make([]byte, f.Size-len(p))...)
			}
			err := f.call(f.First+i, fd, p)
			for err == unix.EINTR {
				err = f.call(f.First+i, fd, p)
			}
			if err != nil {
				fmt.Fprintln(os.Stderr, err)
				return
			}
			succeeded.Add(1)
		})
	}
	calls.Wait()
	fmt.Print(succeeded.Load())
}

// begin begins the calls of f, and returns a function that waits for all answers.
func (a *attacked) begin(f flood) (wait func()) {
	t := a.t
	t.Helper()
	f.Path = a.path()
	args, err := json.Marshal(f)
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command("/proc/self/exe", floodCommand, string(args))
	var out, failures bytes.Buffer
	c.Stdout, c.Stderr = &out, &failures
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	wait = sync.OnceFunc(func() {
		if err := c.Wait(); err != nil || out.String() != fmt.Sprint(f.Calls) {
			t.Errorf("%v; %s of %d calls succeeded: %.500s", err, &out, f.Calls, &failures)
		}
	})
	a.floods = append(a.floods, wait)
	return wait
}

// standing is a BACKING that stands still: a request at a standing BACKING takes up a thread, in
// a system call, until let.
type standing struct {
	pipe   [2]int
	goOn   func()
	inside atomic.Int32 // requests
}

func newStanding(t *testing.T) *standing {
	s := new(standing)
	if err := unix.Pipe2(s.pipe[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	s.goOn = sync.OnceFunc(func() { _ = unix.Close(s.pipe[1]) })
	t.Cleanup(func() {
		s.goOn()
		_ = unix.Close(s.pipe[0])
	})
	return s
}

// let releases n requests, now or when they come.
func (s *standing) let(n int) { _, _ = unix.Write(s.pipe[1], make([]byte, n)) }

// settled waits until no more requests come. A verdict too early makes no test fail.
func (s *standing) settled() {
	for before, same := s.inside.Load(), 0; same < 50; same++ {
		time.Sleep(5 * time.Millisecond)
		if now := s.inside.Load(); now != before {
			before, same = now, 0
		}
	}
}

func (s *standing) wait() fuse.Status {
	s.inside.Add(1)
	defer s.inside.Add(-1)
	_ = uninterrupted(func() error {
		_, err := unix.Read(s.pipe[0], make([]byte, 1))
		return err
	})
	return fuse.OK
}

// twoFiles is a oneFile and the file "pages", whose pages the kernel keeps.
type twoFiles struct{ *oneFile }

const pagesNode = fileNode + 1

func (f twoFiles) Lookup(cancel <-chan struct{}, in *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	if name != "pages" {
		return f.oneFile.Lookup(cancel, in, name, out)
	}
	*out = fuse.EntryOut{NodeId: pagesNode}
	fileAttr(&out.Attr)
	return fuse.OK
}

func (f twoFiles) GetAttr(cancel <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	if in.NodeId == pagesNode {
		in.NodeId = fileNode
	}
	return f.oneFile.GetAttr(cancel, in, out)
}

func (f twoFiles) Open(cancel <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	s := f.oneFile.Open(cancel, in, out)
	if in.NodeId == pagesNode {
		out.OpenFlags = 0
	}
	return s
}

// attacked is the mount under a flood.
type attacked struct {
	t       *testing.T
	server  Server
	dir     string
	waiting string // where the kernel counts requests without an answer
	notify  Notifier
	floods  []func() // each waits for one
}

func newAttacked(t *testing.T, raw fuse.RawFileSystem, transport string) *attacked {
	t.Helper()
	a := &attacked{t: t, dir: t.TempDir()}
	var err error
	a.server, err = Serve(a.dir, raw, Options{Transport: transport, OnInit: func(n Notifier) { a.notify = n }})
	if err != nil {
		t.Fatal(err)
	}
	control := connection(t, a.dir) // while the connection answers
	a.waiting = filepath.Join(control, "waiting")
	t.Cleanup(func() {
		if t.Failed() { // the abort ends the floods' waits
			if err := os.WriteFile(filepath.Join(control, "abort"), []byte("1"), 0); err != nil {
				t.Error(err)
			}
		}
		for _, wait := range a.floods {
			wait()
		}
		if err := unix.Unmount(a.dir, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount: %v", err)
		}
		a.server.Wait()
	})
	return a
}

func (a *attacked) path() string { return filepath.Join(a.dir, "f") }

// await polls until so many requests have no answer, and the server is done with reading.
func (a *attacked) await(requests int) {
	a.t.Helper()
	deadline := time.Now().Add(time.Minute)
	for {
		b, err := os.ReadFile(a.waiting)
		if err != nil {
			a.t.Fatal(err)
		}
		var n int
		if _, err := fmt.Sscan(string(b), &n); err != nil {
			a.t.Fatal(err)
		}
		if n >= requests && a.allRead(requests) {
			return
		}
		if time.Now().After(deadline) {
			a.t.Fatalf("%d requests are waiting after a minute, want %d", n, requests)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// allRead reports whether the loop has read all requests, or as many as allowed.
func (a *attacked) allRead(requests int) bool {
	l, ok := a.server.(*loop)
	if !ok {
		return true
	}
	l.places.mu.Lock()
	defer l.places.mu.Unlock()
	n := len(l.places.held)
	for _, taken := range l.places.taken {
		n += taken
	}
	return n >= requests || l.places.full()
}

// answered calls call, which must be answered while other calls stand still.
func (a *attacked) answered(what string, call func() error) {
	a.t.Helper()
	ended := make(chan error, 1)
	go func() { ended <- call() }()
	select {
	case err := <-ended:
		if err != nil {
			a.t.Errorf("%s: %v", what, err)
		}
	case <-time.After(time.Minute):
		a.t.Errorf("%s is not answered while others stand still", what)
	}
}

// ownStatus is a field of /proc/self/status.
func ownStatus(t *testing.T, field string) (n int) {
	t.Helper()
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if value, ok := strings.CutPrefix(line, field+":"); ok {
			if _, err := fmt.Sscan(value, &n); err != nil {
				t.Fatal(err)
			}
		}
	}
	return n
}

// TestFloodOfWrites, TestFloodOfOpens: many more callers than places, while BACKING stands still
// for their calls. The calls take up few threads; requests without BACKING are answered; an
// interrupt ends its caller's wait; and all calls succeed when BACKING continues.
func TestFloodOfWrites(t *testing.T) {
	eachTransport(t, func(t *testing.T, transport string) {
		f := newOneFile()
		a := newAttacked(t, f, transport)
		s := newStanding(t)
		f.set(func() { f.onWrite = func(<-chan struct{}, *fuse.WriteIn) fuse.Status { return s.wait() } })
		const size, calls = 1024, fileSize / 1024
		threads := ownStatus(t, "Threads")
		var waits []func()
		for first := 0; first < calls; first += calls / 2 {
			waits = append(waits, a.begin(flood{Call: "write", Calls: calls / 2, Size: size, First: first, Flags: unix.O_WRONLY}))
		}
		a.await(calls)
		s.settled()
		if now := ownStatus(t, "Threads"); now > threads+2*mostTransfers {
			t.Errorf("%d threads, and %d with %d writes", threads, now, calls)
		}
		if transport == Loop { // go-fuse reads on until its buffers are used up; each buffer is for the longest request
			meanwhile(a, "write", calls)
		}
		s.goOn()
		for _, wait := range waits {
			wait()
		}
		written, err := os.ReadFile(a.path())
		if err != nil {
			t.Fatal(err)
		}
		for i := range calls {
			if got := binary.NativeEndian.Uint64(written[i*size:]); got != uint64(i) {
				t.Fatalf("write %d was answered, and %d is in its place", i, got)
			}
		}
	})
}

func TestFloodOfOpens(t *testing.T) {
	eachTransport(t, func(t *testing.T, transport string) {
		f := newOneFile()
		a := newAttacked(t, f, transport)
		s := newStanding(t)
		file, err := os.OpenFile(a.path(), os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = file.Close() }()
		f.set(func() { f.onOpen = func(<-chan struct{}) fuse.Status { return s.wait() } })
		const calls = 2000
		threads := ownStatus(t, "Threads")
		wait := a.begin(flood{Call: "open", Calls: calls, Flags: unix.O_RDONLY})
		a.await(calls)
		s.settled()
		if now := ownStatus(t, "Threads"); now > threads+2*mostTransfers {
			t.Errorf("%d threads, and %d with %d opens", threads, now, calls)
		}
		a.answered("a read", func() error { _, err := file.ReadAt(make([]byte, 512), 0); return err })
		a.answered("a write", func() error { _, err := file.WriteAt(make([]byte, 512), 0); return err })
		meanwhile(a, "open", calls)
		s.goOn()
		wait()
	})
}

// meanwhile makes the calls that must be answered, and interrupts a held call.
func meanwhile(a *attacked, held string, flooded int) {
	a.t.Helper()
	a.answered("a stat", func() error { _, err := os.Stat(a.path()); return err })
	a.answered("a statfs", func() error { return unix.Statfs(a.dir, new(unix.Statfs_t)) })
	a.answered("a look-up", func() error {
		if _, err := os.Stat(filepath.Join(a.dir, "missing")); !errors.Is(err, os.ErrNotExist) {
			return err
		}
		return nil
	})
	if held == "write" {
		a.answered("an open and a read", func() error {
			f, err := os.Open(a.path())
			if err != nil {
				return err
			}
			_, err = f.ReadAt(make([]byte, 512), 0)
			return errors.Join(err, f.Close())
		})
	}
	c := exec.Command("/bin/sh", "-c", map[string]string{
		"write": "exec dd conv=notrunc if=/dev/zero count=1 of=" + a.path(),
		"open":  "exec head -c 1 " + a.path(),
	}[held])
	if err := c.Start(); err != nil {
		a.t.Fatal(err)
	}
	a.await(flooded + 1)
	if err := c.Process.Signal(unix.SIGTERM); err != nil {
		a.t.Error(err)
	}
	a.answered("a caller who was interrupted", func() error { _ = c.Wait(); return nil })
}

// TestFloodOfBytes: the memory for writes of the largest size is bounded.
func TestFloodOfBytes(t *testing.T) {
	eachTransport(t, func(t *testing.T, transport string) {
		f := newOneFile()
		a := newAttacked(t, f, transport)
		s := newStanding(t)
		f.set(func() { f.onWrite = func(<-chan struct{}, *fuse.WriteIn) fuse.Status { return s.wait() } })
		const calls = 1500
		debug.FreeOSMemory()
		memory := ownStatus(t, "VmRSS")
		wait := a.begin(flood{Call: "write", Calls: calls, Size: maxWrite, Flags: unix.O_WRONLY})
		a.await(calls)
		s.settled()
		// Requests held and under way are a quarter of that; the race detector keeps as much
		// again.
		if grown, most := ownStatus(t, "VmRSS")-memory, calls*maxWrite/1024*2/3; grown > most {
			t.Errorf("memory grew by %d KiB with %d writes of 1 MiB, want less than %d", grown, calls, most)
		}
		s.goOn()
		wait()
	})
}

// TestReadOnBelowTheBound: as soon as there is room again, requests are read, while all requests
// begun before stand still.
func TestReadOnBelowTheBound(t *testing.T) {
	f := newOneFile()
	a := newAttacked(t, f, Loop)
	s := newStanding(t)
	f.set(func() { f.onWrite = func(<-chan struct{}, *fuse.WriteIn) fuse.Status { return s.wait() } })
	const calls = mostTransfers + mostHeld/maxWrite + 20
	wait := a.begin(flood{Call: "write", Calls: calls, Size: maxWrite, Flags: unix.O_WRONLY})
	a.await(calls)
	s.let(100)
	a.answered("a stat", func() error { _, err := os.Stat(a.path()); return err })
	s.goOn()
	wait()
}

// TestNoticesBehindAFlood: as many WRITEs as fs allows wait until the kernel has dropped a page.
// The page is locked for a READ, and nobody reads the READ because of held requests. The READ is
// read in the end, since the other WRITEs are answered.
func TestNoticesBehindAFlood(t *testing.T) {
	eachTransport(t, func(t *testing.T, transport string) {
		const waiting = mostTransfers / 2 // fs.mostWaiting
		f, gate := newOneFile(), make(chan struct{})
		a := newAttacked(t, twoFiles{f}, transport)
		open := sync.OnceFunc(func() { close(gate) })
		t.Cleanup(open)
		var begun atomic.Int32
		onWrite := func(<-chan struct{}, *fuse.WriteIn) fuse.Status {
			waits := begun.Add(1) <= waiting
			<-gate
			if waits {
				return a.notify.InodeNotify(pagesNode, 0, pageSize)
			}
			return fuse.OK
		}
		f.set(func() { f.onWrite = onWrite })
		file, err := os.Open(filepath.Join(a.dir, "pages"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = file.Close() })
		const calls = mostTransfers + mostHeld/maxWrite + 64
		wait := a.begin(flood{Call: "write", Calls: calls, Size: maxWrite, Flags: unix.O_WRONLY})
		a.await(calls)
		read := make(chan error, 1)
		go func() {
			_, err := file.ReadAt(make([]byte, 1), 0)
			read <- err
		}()
		a.await(calls + 1)
		open()
		a.answered("the read", func() error { return <-read })
		if !t.Failed() {
			wait()
		}
	})
}
