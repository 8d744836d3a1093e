package fs

import (
	"bytes"
	"os"
	"runtime"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

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

// submitWrites begins count asynchronous writes of p at the begin of fd, and returns a function
// that waits for the end of all.
func submitWrites(t *testing.T, fd int, p []byte, count int) (wait func(limit time.Duration) bool) {
	t.Helper()
	const write = 1 // IOCB_CMD_PWRITE
	var queue uintptr
	if _, _, errno := unix.Syscall(unix.SYS_IO_SETUP, uintptr(count), uintptr(unsafe.Pointer(&queue)), 0); errno != 0 {
		t.Fatal("io_setup:", errno)
	}
	one := &iocb{opcode: write, fd: uint32(fd), buf: uint64(uintptr(unsafe.Pointer(&p[0]))), nbytes: uint64(len(p))}
	submitted := make(chan struct{})
	go func() { // io_submit waits when the kernel has no more requests to give
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

// TestManyWritesOverReadahead: a readahead has locked pages, and waits for one of the kernel's
// asynchronous requests, all of which are direct writes to these pages. Some of the writes do not
// wait for the pages, and the pages are gone after the writes.
func TestManyWritesOverReadahead(t *testing.T) {
	const many = 512
	r := newRig(t, nil)
	r.write("a.qcow2", string(make([]byte, 1<<20)))
	r.idle()
	reader := r.open("a.qcow2", os.O_RDONLY)
	direct := r.open("a.qcow2", os.O_RDWR|unix.O_DIRECT)
	landed, inside := make(chan struct{}), new(atomic.Int64)
	kernel := *r.fs.notifier.Load()
	r.fs.SetNotifier(notices{kernel, func() {
		inside.Add(1)
		<-landed
	}})
	p, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(p)
	for i := range p {
		p[i] = 'w'
	}
	wait := submitWrites(t, int(direct.Fd()), p, many)
	for deadline := time.Now().Add(time.Minute); inside.Load() < mostWaiting; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) { // each write above the bound costs a page drop after the answer
			t.Errorf("%d writes wait for the pages, want %d at least", inside.Load(), mostWaiting)
			break
		}
	}
	read := make(chan error, 1)
	go func() {
		_, err := reader.ReadAt(make([]byte, 1<<20), 0)
		read <- err
	}()
	time.Sleep(100 * time.Millisecond) // for the readahead to lock pages; a shorter wait tests less
	close(landed)
	if !wait(30 * time.Second) {
		t.Error("the writes and the readahead wait for each other")
		if err := unix.Unmount(r.mnt, unix.MNT_FORCE); err != nil { // ends the connection
			t.Log(err)
		}
		wait(30 * time.Second)
	}
	if err := <-read; err != nil && !t.Failed() {
		t.Error(err)
	}
	r.fs.dropping.Wait()
	r.fs.SetNotifier(kernel)
	if t.Failed() {
		return
	}
	got := make([]byte, len(p))
	if _, err := reader.ReadAt(got, 0); err != nil || !bytes.Equal(got, p) {
		t.Errorf("read %q…, %v after the writes", got[:8], err)
	}
}
