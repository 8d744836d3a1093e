package transport

import (
	"fmt"
	"sync"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

const (
	pageSize = 4096

	inHeaderSize    = int(unsafe.Sizeof(fuse.InHeader{}))
	readInSize      = int(unsafe.Sizeof(fuse.ReadIn{}))
	writeInSize     = int(unsafe.Sizeof(fuse.WriteIn{}))
	interruptInSize = int(unsafe.Sizeof(fuse.InterruptIn{}))
	outHeaderSize   = int(unsafe.Sizeof(fuse.OutHeader{}))

	// A page for headers, the payload, and one more page for requests longer than a payload.
	regionSize = pageSize + maxWrite + pageSize
)

// worker holds the memory and state for one request at a time. The memory is outside of Go's
// heap: only used pages are real, no page is in a core file, and all pages are given back at
// once.
type worker struct {
	memory []byte
	in     []byte        // a request; the payload of a WRITE begins at a page
	out    []byte        // an answer; the payload of a READ begins at a page
	wake   chan struct{} // a parked worker's turn
	run    int           // requests found waiting, one upon the other

	// The form in which HandleRequest takes buffers; kept here, so a request allocates none.
	inVector, outVector [1][]byte

	mu          sync.Mutex
	unique      uint64 // the request under way, or 0
	direct      bool   // a READ or WRITE, cancelled by closing cancel
	cancel      chan struct{}
	interrupted bool // the request was cancelled; cancel is closed if direct
}

func newWorker() (*worker, error) {
	memory, err := mapMemory(2 * regionSize)
	if err != nil {
		return nil, err
	}
	return &worker{
		memory: memory,
		in:     memory[pageSize-writeInSize : regionSize],
		out:    memory[regionSize+pageSize-outHeaderSize:],
		wake:   make(chan struct{}, 1),
		cancel: make(chan struct{}),
	}, nil
}

// mapMemory maps memory that stays out of core files.
func mapMemory(size int) ([]byte, error) {
	memory, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		return nil, fmt.Errorf("memory of a FUSE request: %w", err)
	}
	if err := unix.Madvise(memory, unix.MADV_DONTDUMP); err != nil {
		_ = unix.Munmap(memory)
		return nil, fmt.Errorf("memory of a FUSE request: %w", err)
	}
	return memory, nil
}

func (w *worker) free() { _ = unix.Munmap(w.memory) }

// The content of w.in as the kernel's structures: the caller has checked opcode and length.
func (w *worker) header() *fuse.InHeader { return (*fuse.InHeader)(unsafe.Pointer(&w.in[0])) }
func (w *worker) readIn() *fuse.ReadIn   { return (*fuse.ReadIn)(unsafe.Pointer(&w.in[0])) }
func (w *worker) writeIn() *fuse.WriteIn { return (*fuse.WriteIn)(unsafe.Pointer(&w.in[0])) }
func (w *worker) interruptIn() *fuse.InterruptIn {
	return (*fuse.InterruptIn)(unsafe.Pointer(&w.in[0]))
}
func (w *worker) opcode() uint32       { return min(w.header().Opcode, opcodes-1) }
func (w *worker) initIn() *fuse.InitIn { return (*fuse.InitIn)(unsafe.Pointer(&w.in[0])) }

// begin records that the request unique is under way, end that no request is. direct means that
// closing w.cancel cancels the request.
func (w *worker) begin(unique uint64, direct bool) {
	w.mu.Lock()
	w.unique, w.direct = unique, direct
	w.mu.Unlock()
}

func (w *worker) end() {
	w.mu.Lock()
	w.unique, w.direct = 0, false
	if w.interrupted {
		w.cancel, w.interrupted = make(chan struct{}), false
	}
	w.mu.Unlock()
}

// answer makes w.out an answer with n bytes of payload, or an error, and returns the answer.
func (w *worker) answer(unique uint64, status fuse.Status, n int) []byte {
	if status != fuse.OK {
		n = 0
	}
	h := (*fuse.OutHeader)(unsafe.Pointer(&w.out[0]))
	*h = fuse.OutHeader{Length: uint32(outHeaderSize + n), Status: -int32(status), Unique: unique}
	return w.out[:outHeaderSize+n]
}
