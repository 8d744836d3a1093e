package fs

import (
	"errors"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"vmcryptfs/fs/cryptfile"
)

// handle is an open file or directory of the kernel's.
type handle struct {
	node *node
	// direct: opened O_DIRECT, and counted so by the open file (content.File.WantDirect).
	direct bool
	write  bool     // acquired to write; the kernel admits writes through such handles alone
	dir    *listing // of a directory
	// told is the last failed sync already reported to this handle's caller, or to another before
	// the open.
	told atomic.Pointer[cryptfile.SyncFailure]
}

// sync makes the written bytes durable. Handles share a descriptor of BACKING, which reports a lost
// write once, perhaps to a sync of our own. sync tells each handle once, as a local file tells each
// descriptor.
func (h *handle) sync(d cryptfile.Durability) error {
	h.node.Mu.RLock()
	defer h.node.Mu.RUnlock()
	file := h.node.file
	if file == nil {
		return unix.EBADF
	}
	err := file.Sync(d)
	failure := file.SyncFailure()
	if told := h.told.Swap(failure); err == nil && failure != nil && failure != told {
		failure.Hear()
		err = failure.Err
	}
	return err
}

// hears notes err as the answer to a durable write; err may be a write lost by other handles.
func (h *handle) hears(err error) {
	if failure := h.node.syncFailure(); failure != nil && errors.Is(err, failure.Err) {
		failure.Hear()
		h.told.Store(failure)
	}
}

// handles are the open handles, by the kernel's number. Safe for concurrent use.
type handles struct {
	mu   sync.RWMutex // a leaf
	last uint64
	open map[uint64]*handle
}

func (h *handles) add(x *handle) uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.last++
	h.open[h.last] = x
	return h.last
}

// get gives a handle, or nil.
func (h *handles) get(fh uint64) *handle {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return h.open[fh]
}

func (h *handles) remove(fh uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.open, fh)
}

// count is the number of open files and directories.
func (h *handles) count() int {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return len(h.open)
}

// close ends the listings of directories; files are closed with their nodes.
func (h *handles) close() error {
	h.mu.Lock()
	open := h.open
	h.open = make(map[uint64]*handle)
	h.mu.Unlock()
	var errs []error
	for _, x := range open {
		if x.dir != nil {
			errs = append(errs, x.dir.close())
		}
	}
	return errors.Join(errs...)
}
