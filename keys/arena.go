package keys

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// chunkSize is the number of bytes locked at once. Each chunk serves one size class, so a small
// chunk lets a limit of 64 KiB have room for several classes. 1,000 open files (a DEK of 64 bytes
// and key schedules of 768 bytes each) lock about 850 KiB.
const chunkSize = 16 << 10

// ErrMemory: the limit on locked memory is met.
var ErrMemory = errors.New("no more memory may be locked for keys")

// maxSecret is the greatest size of a Secret in bytes.
const maxSecret = 4096

// classSizes are the sizes of slots in bytes, all multiples of 64: every slot begins on a cache
// line, which AVX-512 prefers. 768 is the size of key schedules.
var classSizes = [...]int{64, 256, 768, 1024, 2048, maxSecret}

// arena hands out slots of locked pages. The zero arena is ready. Safe for concurrent use.
//
// A chunk goes back to the system with its last slot, unless no other chunk of the class has
// room: opening and closing one file does not map and unmap.
type arena struct {
	mu   sync.Mutex
	room [len(classSizes)][]*chunk // chunks with a free slot; guarded by mu
}

// chunk is locked pages cut into slots of one size, between two guard pages: a run
// off either end faults and reads no key.
type chunk struct {
	mapping []byte // guard page, slots, guard page
	slots   []byte
	class   int
	free    []uint16 // numbers of free slots; guarded by arena.mu
}

// slot is one piece of a chunk, in use.
type slot struct {
	chunk *chunk
	n     uint16
}

// classOf is the class of slots for n bytes.
func classOf(n int) int {
	return slices.IndexFunc(classSizes[:], func(size int) bool { return n <= size })
}

// alloc returns n (1…maxSecret) zero bytes of locked memory.
func (a *arena) alloc(n int) ([]byte, slot, error) {
	class := classOf(n)
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.room[class]) == 0 {
		c, err := mapChunk(class)
		if err != nil {
			return nil, slot{}, err
		}
		a.room[class] = append(a.room[class], c)
	}
	last := len(a.room[class]) - 1
	c := a.room[class][last]
	s := slot{chunk: c, n: c.free[len(c.free)-1]}
	c.free = c.free[:len(c.free)-1]
	if len(c.free) == 0 {
		a.room[class] = slices.Delete(a.room[class], last, last+1)
	}
	return c.bytes(s.n)[:n:n], s, nil
}

// release zeroes a slot and makes the slot free.
func (a *arena) release(s slot) {
	a.mu.Lock()
	defer a.mu.Unlock()
	c := s.chunk
	clear(c.bytes(s.n))
	c.free = append(c.free, s.n)
	room := &a.room[c.class]
	if len(c.free) == 1 {
		*room = append(*room, c)
	}
	if len(c.free) == c.count() && len(*room) > 1 {
		i := slices.Index(*room, c)
		*room = slices.Delete(*room, i, i+1)
		c.unmap()
	}
}

// mapChunk maps and locks the pages of one chunk.
func mapChunk(class int) (*chunk, error) {
	page := unix.Getpagesize()
	// Fewer, larger pages only round the chunk up.
	size := (chunkSize + page - 1) / page * page
	mapping, err := unix.Mmap(-1, 0, size+2*page, unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, fmt.Errorf("map %d bytes for keys: %w", size, err)
	}
	c := &chunk{mapping: mapping, slots: mapping[page : page+size : page+size], class: class}
	if err := c.protect(); err != nil {
		c.unmap()
		return nil, err
	}
	for i := c.count(); i > 0; i-- {
		c.free = append(c.free, uint16(i-1))
	}
	return c, nil
}

// protect makes the slots usable, locked, left out of core files, and zero in a
// forked child.
func (c *chunk) protect() error {
	if err := unix.Mprotect(c.slots, unix.PROT_READ|unix.PROT_WRITE); err != nil {
		return fmt.Errorf("make memory for keys writable: %w", err)
	}
	if err := unix.Mlock(c.slots); err != nil {
		return fmt.Errorf("%w: lock %d bytes: %w; raise the limit (LimitMEMLOCK= of the systemd unit, ulimit -l)",
			ErrMemory, len(c.slots), err)
	}
	if err := unix.Madvise(c.slots, unix.MADV_DONTDUMP); err != nil {
		return fmt.Errorf("leave memory for keys out of core files: %w", err)
	}
	if err := unix.Madvise(c.slots, unix.MADV_WIPEONFORK); err != nil {
		return fmt.Errorf("leave memory for keys out of children: %w", err)
	}
	return nil
}

// unmap gives the pages back. The pages hold zeros: release clears every slot. A failure would
// mean a mapping of somebody else.
func (c *chunk) unmap() {
	if err := unix.Munmap(c.mapping); err != nil {
		panic(fmt.Sprintf("keys: unmap %p: %v", unsafe.SliceData(c.mapping), err))
	}
}

func (c *chunk) count() int { return len(c.slots) / classSizes[c.class] }

func (c *chunk) bytes(n uint16) []byte {
	size := classSizes[c.class]
	return c.slots[int(n)*size : (int(n)+1)*size]
}
