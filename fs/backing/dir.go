package backing

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"

	"golang.org/x/sys/unix"
)

// dirBuffer is how many bytes of entries are read from BACKING at once.
const dirBuffer = 32 << 10

// Entry is one entry of getdents64(2).
type Entry struct {
	Dev  uint64 // st_dev of the directory
	Ino  uint64
	Off  uint64 // of the entry after this one
	Kind uint32 // S_IFMT bits, 0 if BACKING does not say
	Name []byte // valid until the next call
}

// Key is the identity of the inode that e names.
func (e *Entry) Key() Key { return Key{e.Dev, e.Ino} }

// ParseEntry reads a struct linux_dirent64.
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

// Dir reads a directory. Offsets are BACKING's own, so seekdir(3) finds its way after
// entries came and went. One goroutine at a time uses a dirStream; close and sync may be called
// beside it.
type Dir struct {
	dev  uint64 // st_dev; immutable
	Fd   int    // open until close, when nobody uses the stream any more
	next uint64 // offset at which rest goes on
	rest []byte // of buf: entries read and not given
	buf  []byte
	// quiet: what is read leaves no access time.
	quiet bool
}

// OpenDir opens a directory: flags are O_NOATIME for one that no caller reads.
func OpenDir(dir int, flags int) (*Dir, error) {
	flags |= unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC
	fd, err := unix.Openat(dir, ".", flags, 0)
	if errors.Is(err, unix.EPERM) { // somebody else's directory
		fd, err = unix.Openat(dir, ".", flags&^unix.O_NOATIME, 0)
	}
	if err != nil {
		return nil, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	return &Dir{dev: st.Dev, Fd: fd}, nil
}

// Close is idempotent.
func (s *Dir) Close() error {
	if s.Fd < 0 {
		return nil
	}
	err := unix.Close(s.Fd)
	s.Fd, s.rest, s.buf = -1, nil, nil
	return err
}

// SetQuiet has reading leave an access time or not, as far as that is permitted.
func (s *Dir) SetQuiet(quiet bool) {
	if quiet == s.quiet {
		return
	}
	flags := 0
	if quiet {
		flags = unix.O_NOATIME
	}
	if _, err := unix.FcntlInt(uintptr(s.Fd), unix.F_SETFL, flags); err == nil {
		s.quiet = quiet
	}
}

// Seek makes the entry at off the next one.
func (s *Dir) Seek(off uint64) error {
	if off == s.next && off != 0 {
		return nil
	}
	if off > math.MaxInt64 {
		return unix.EINVAL
	}
	// From 0 always anew: rewinddir(3) shows what is there now.
	if _, err := unix.Seek(s.Fd, int64(off), unix.SEEK_SET); err != nil {
		return err
	}
	s.next, s.rest = off, nil
	return nil
}

// Peek gives the next entry, nil at the end of the directory. take goes past it.
func (s *Dir) Peek() (*Entry, error) {
	if len(s.rest) == 0 {
		if err := s.fill(); err != nil || len(s.rest) == 0 {
			return nil, err
		}
	}
	e, _, err := ParseEntry(s.rest)
	if err != nil {
		return nil, err
	}
	e.Dev = s.dev
	return &e, nil
}

// Read gives the next entry and goes past it; nil at the end of the directory.
func (s *Dir) Read() (*Entry, error) {
	e, err := s.Peek()
	if e != nil {
		s.Take()
	}
	return e, err
}

func (s *Dir) Take() {
	e, size, err := ParseEntry(s.rest)
	if err != nil { // peek has seen it
		return
	}
	s.rest, s.next = s.rest[size:], e.Off
}

func (s *Dir) fill() error {
	if s.buf == nil {
		s.buf = make([]byte, dirBuffer)
	}
	for {
		n, err := unix.Getdents(s.Fd, s.buf)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		s.rest = s.buf[:max(n, 0)]
		return err
	}
}
