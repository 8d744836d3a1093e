package backing

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"

	"golang.org/x/sys/unix"
)

// dirBuffer is how many bytes of entries are read at once.
const dirBuffer = 32 << 10

// Entry is one entry of getdents64(2).
type Entry struct {
	Dev  uint64 // st_dev of the directory
	Ino  uint64
	Off  uint64 // of the entry after this one
	Kind uint32 // S_IFMT bits; 0: the file system does not say
	Name []byte // valid until the next Peek or Read
}

// Key is the identity of the inode that e names.
func (e *Entry) Key() Key { return Key{e.Dev, e.Ino} }

// ParseEntry reads the struct linux_dirent64 at the beginning of b: the entry, but for Dev, and its
// size in bytes. EIO if b does not begin with a whole one.
func ParseEntry(b []byte) (e Entry, size int, err error) {
	const header = 19 // d_ino, d_off, d_reclen, d_type
	if len(b) < header {
		return e, 0, unix.EIO
	}
	size = int(binary.NativeEndian.Uint16(b[16:]))
	if size < header || size > len(b) {
		return e, 0, unix.EIO
	}
	name := b[header:size]
	if end := bytes.IndexByte(name, 0); end >= 0 {
		name = name[:end]
	}
	return Entry{
		Ino:  binary.NativeEndian.Uint64(b),
		Off:  binary.NativeEndian.Uint64(b[8:]),
		Kind: uint32(b[18]) << 12,
		Name: name,
	}, size, nil
}

// Dir reads a directory. Offsets are the file system's own, so seekdir(3) finds its way after
// entries came and went. One goroutine at a time uses a Dir; Sync may be called beside others.
type Dir struct {
	dev  uint64 // st_dev; immutable
	fd   int    // -1 after Close
	next uint64 // offset at which rest goes on
	rest []byte // of buf: entries read and not given
	buf  []byte
	// quiet: what is read leaves no access time.
	quiet bool
}

// OpenDir opens the directory name in dir, following no symbolic link; "." is dir itself. flags
// are O_NOATIME for a directory that the program reads for itself, which is passed over where
// the directory is somebody else's, or 0. The caller closes the Dir.
func OpenDir(dir int, name string, flags int) (*Dir, error) {
	flags |= unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
	fd, err := unix.Openat(dir, name, flags, 0)
	if errors.Is(err, unix.EPERM) {
		fd, err = unix.Openat(dir, name, flags&^unix.O_NOATIME, 0)
	}
	if err != nil {
		return nil, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	return &Dir{dev: st.Dev, fd: fd}, nil
}

// Sync makes the names in the directory durable: fsync(2).
func (d *Dir) Sync() error { return unix.Fsync(d.fd) }

// Close is idempotent.
func (d *Dir) Close() error {
	if d.fd < 0 {
		return nil
	}
	err := unix.Close(d.fd)
	d.fd, d.rest, d.buf = -1, nil, nil
	return err
}

// SetQuiet makes later reads leave no access time (quiet), or leave one, as far as that is
// permitted.
func (d *Dir) SetQuiet(quiet bool) {
	if quiet == d.quiet {
		return
	}
	flags := 0
	if quiet {
		flags = unix.O_NOATIME
	}
	if _, err := unix.FcntlInt(uintptr(d.fd), unix.F_SETFL, flags); err == nil {
		d.quiet = quiet
	}
}

// Seek makes the entry at off, an Off of an earlier entry or 0, the next one. EINVAL if no file
// system has such an offset.
func (d *Dir) Seek(off uint64) error {
	if off == d.next && off != 0 {
		return nil
	}
	if off > math.MaxInt64 {
		return unix.EINVAL
	}
	// From 0 always anew: rewinddir(3) shows what is there now.
	if _, err := unix.Seek(d.fd, int64(off), unix.SEEK_SET); err != nil {
		return err
	}
	d.next, d.rest = off, nil
	return nil
}

// Peek gives the next entry, nil at the end of the directory. Take goes past it.
func (d *Dir) Peek() (*Entry, error) {
	if len(d.rest) == 0 {
		if err := d.fill(); err != nil || len(d.rest) == 0 {
			return nil, err
		}
	}
	e, _, err := ParseEntry(d.rest)
	if err != nil {
		return nil, err
	}
	e.Dev = d.dev
	return &e, nil
}

// Read gives the next entry and goes past it; nil at the end of the directory.
func (d *Dir) Read() (*Entry, error) {
	e, err := d.Peek()
	if e != nil {
		d.Take()
	}
	return e, err
}

// Take goes past the entry that Peek gave.
func (d *Dir) Take() {
	e, size, err := ParseEntry(d.rest)
	if err != nil { // Peek has seen it
		return
	}
	d.rest, d.next = d.rest[size:], e.Off
}

func (d *Dir) fill() error {
	if d.buf == nil {
		d.buf = make([]byte, dirBuffer)
	}
	for {
		n, err := unix.Getdents(d.fd, d.buf)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		d.rest = d.buf[:max(n, 0)]
		return err
	}
}
