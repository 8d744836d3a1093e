package transport

import (
	"os/exec"
	"runtime"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// iocb is one request of io_submit(2).
type iocb struct {
	_           uint64
	_, _        uint32
	opcode, _   uint16
	fd          uint32
	buf, nbytes uint64
	_           int64
	_           uint64
	_, _        uint32
}

// submitWrites begins count asynchronous writes of p at the begin of fd, and returns what
// waits until all have ended.
func submitWrites(t *testing.T, fd int, p []byte, count int) (wait func(limit time.Duration) bool) {
	t.Helper()
	const write = 1 // IOCB_CMD_PWRITE
	var queue uintptr
	if _, _, errno := unix.Syscall(unix.SYS_IO_SETUP, uintptr(count), uintptr(unsafe.Pointer(&queue)), 0); errno != 0 {
		t.Fatal("io_setup:", errno)
	}
	one := &iocb{opcode: write, fd: uint32(fd), buf: uint64(uintptr(unsafe.Pointer(&p[0]))), nbytes: uint64(len(p))}
	submitted := make(chan struct{})
	go func() { // io_submit waits while the kernel has no more requests to give
		defer close(submitted)
		for range count {
			if _, _, errno := unix.Syscall(unix.SYS_IO_SUBMIT, queue, 1, uintptr(unsafe.Pointer(&one))); errno != 0 {
				t.Error("io_submit:", errno)
			}
		}
		runtime.KeepAlive(p)
	}()
	return func(limit time.Duration) bool {
		events := make([][4]uint64, count)
		for got, deadline := 0, time.Now().Add(limit); got < count; {
			left := unix.NsecToTimespec(int64(time.Until(deadline)))
			if left.Sec < 0 {
				return false
			}
			n, _, errno := unix.Syscall6(unix.SYS_IO_GETEVENTS, queue, 1, uintptr(count-got), uintptr(unsafe.Pointer(&events[0])), uintptr(unsafe.Pointer(&left)), 0)
			if errno != 0 && errno != unix.EINTR {
				t.Error("io_getevents:", errno)
				return false
			}
			if errno == 0 {
				got += int(n)
			}
		}
		<-submitted
		_, _, _ = unix.Syscall(unix.SYS_IO_DESTROY, queue, 0, 0)
		return true
	}
}

// TestManyWritesOverReadahead: a readahead has locked pages, and waits for one of the
// kernel's background requests, of which many direct writes are, and each of those
// waits in InodeNotify for the pages. As many as one disk of a guest has in flight must
// leave the readahead one.
func TestManyWritesOverReadahead(t *testing.T) {
	const many = 512
	var inside atomic.Int32
	landed := make(chan struct{})
	f := newOneFile()
	f.cached = true
	r := newRig(t, f)
	reading := make(chan struct{}, fileSize/4096)
	f.set(func() {
		f.onRead = func(<-chan struct{}, *fuse.ReadIn) fuse.Status {
			reading <- struct{}{}
			return fuse.OK
		}
		f.onWrite = func(cancel <-chan struct{}, in *fuse.WriteIn) fuse.Status {
			inside.Add(1)
			r.loop.promote() // as InodeNotify, which here comes later
			<-landed
			r.loop.InodeNotify(fileNode, int64(in.Offset), int64(in.Size))
			return fuse.EIO // nobody asks what was written
		}
	})
	fd, err := unix.Open(r.file.Name(), unix.O_RDWR|unix.O_DIRECT, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	p, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(p)
	wait := submitWrites(t, fd, p, many)
	// The kernel sends no more than it has requests.
	r.until("all writes are under way", func() bool { return int(inside.Load()) == min(many, maxBackground) })
	reader := exec.Command("cat", r.file.Name())
	if err := reader.Start(); err != nil {
		t.Fatal(err)
	}
	for waits := 0; waits < 50 && len(reading) == 0; time.Sleep(time.Millisecond) { // for a request, or for its answer
		if waits++; !uninterruptible(t, reader.Process.Pid) {
			waits = 0
		}
	}
	close(landed)
	if !wait(30 * time.Second) {
		t.Error("the writes and the readahead wait for each other")
		abort(t, r.dir)
		wait(30 * time.Second)
	}
	if err := reader.Wait(); err != nil && !t.Failed() {
		t.Error(err)
	}
}
