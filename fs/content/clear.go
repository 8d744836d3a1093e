package content

import (
	"errors"
	"sync"

	"golang.org/x/sys/unix"

	"vmcryptfs/fs/cryptfile"
	"vmcryptfs/layout"
)

// clearFile is a cleartext file, or a file without a form that is only read.
type clearFile struct {
	*cryptfile.OSFile
	// head admits one write at a time to the place where the magic of an encrypted file would
	// stand.
	head sync.Mutex
}

const magicLen = int64(len(layout.Magic))

// WriteAt writes p. EPERM: the file would then look encrypted.
func (c *clearFile) WriteAt(p []byte, off int64, d cryptfile.Durability) (int, error) {
	if !mayMakeMagic(p, off) {
		return c.OSFile.WriteAt(p, off, d)
	}
	c.head.Lock()
	defer c.head.Unlock()
	var head [magicLen]byte
	n, err := c.OSFile.PeekAt(head[:], 0)
	if errors.Is(err, unix.EBADF) { // open for writing alone: the bytes there are unknown
		return 0, unix.EPERM
	}
	if err != nil {
		return 0, err
	}
	n = max(n, int(off)+copy(head[off:], p))
	if layout.HasMagic(head[:n]) {
		return 0, unix.EPERM
	}
	return c.OSFile.WriteAt(p, off, d)
}

// mayMakeMagic reports whether a file may begin with the magic of an encrypted one once p is
// written at off.
func mayMakeMagic(p []byte, off int64) bool {
	if off >= magicLen || len(p) == 0 {
		return false
	}
	part := layout.Magic[off:]
	part = part[:min(len(part), len(p))]
	return string(p[:len(part)]) == part
}

func (c *clearFile) Punch(off, n int64) error {
	return c.Fallocate(unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n)
}

func (c *clearFile) Zero(off, n int64, keepSize bool) error {
	return c.Fallocate(unix.FALLOC_FL_ZERO_RANGE|keep(keepSize), off, n)
}

func (c *clearFile) Allocate(off, n int64, keepSize bool) error {
	return c.Fallocate(keep(keepSize), off, n)
}

func keep(size bool) uint32 {
	if size {
		return unix.FALLOC_FL_KEEP_SIZE
	}
	return 0
}
