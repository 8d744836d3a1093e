package transport

import (
	"bytes"

	"golang.org/x/sys/unix"
)

// held is a request that was read and has no place yet. A held request has neither a worker nor a
// goroutine, and costs only its own bytes.
type held struct {
	fd     int // descriptor of the read, and of the answer later
	op     uint32
	unique uint64
	in     []byte
	mapped bool // in is a mapping of its own, like a worker's memory; else Go's
}

// newHeld copies the request of n bytes in w.in, read from fd.
func newHeld(w *worker, fd, n int) (*held, error) {
	h := &held{fd: fd, op: w.opcode(), unique: w.header().Unique}
	if h.op != opWrite && n <= pageSize {
		h.in = bytes.Clone(w.in[:n])
		return h, nil
	}
	memory, err := mapMemory(n)
	if err != nil {
		return nil, err
	}
	copy(memory, w.in)
	h.in, h.mapped = memory, true
	return h, nil
}

// size returns the counted memory in bytes: that of requests with data.
func (h *held) size() int64 {
	if !h.mapped {
		return 0
	}
	return int64(len(h.in)+pageSize-1) &^ (pageSize - 1)
}

// moveTo makes h the request in w.in, and returns the length.
func (h *held) moveTo(w *worker) int {
	n := copy(w.in, h.in)
	h.free()
	return n
}

func (h *held) free() {
	if h.mapped {
		_ = unix.Munmap(h.in)
	}
	h.in, h.mapped = nil, false
}
