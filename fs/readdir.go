package fs

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"sync"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"vmcryptfs/layout"
)

// dirBuffer is how many bytes of entries are read from BACKING at once.
const dirBuffer = 32 << 10

// dirStream reads a directory. The offsets that callers see are BACKING's own, so
// seekdir(3) finds its way after entries came and went; but see narrowOffsets.
type dirStream struct {
	dev  uint64     // st_dev; immutable
	fd   int        // open until close, when nobody uses the stream any more
	mu   sync.Mutex // before FS.names; guards the rest
	next uint64     // offset at which rest goes on
	rest []byte     // of buf: entries read and not given
	buf  []byte
	// quiet: what is read leaves no access time.
	quiet bool

	asked  bool           // if narrow is wanted
	narrow *narrowOffsets // nil: not wanted
}

// dirEntry is one entry of getdents64(2).
type dirEntry struct {
	dev  uint64 // filled in by walk
	ino  uint64
	off  uint64 // of the entry after this one
	kind uint32 // S_IFMT bits, 0 if BACKING does not say
	name []byte // valid until the next call
}

// openDirStream opens a directory: flags are O_NOATIME for one that no caller reads.
func openDirStream(dir int, flags int) (*dirStream, error) {
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
	return &dirStream{dev: st.Dev, fd: fd}, nil
}

func (s *dirStream) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fd < 0 {
		return nil
	}
	err := unix.Close(s.fd)
	s.fd, s.rest, s.buf = -1, nil, nil
	return err
}

// setQuiet has reading leave an access time or not, as far as that is permitted.
func (s *dirStream) setQuiet(quiet bool) {
	if quiet == s.quiet {
		return
	}
	flags := 0
	if quiet {
		flags = unix.O_NOATIME
	}
	if _, err := unix.FcntlInt(uintptr(s.fd), unix.F_SETFL, flags); err == nil {
		s.quiet = quiet
	}
}

// seek makes the entry at off the next one.
func (s *dirStream) seek(off uint64) error {
	if off == s.next && off != 0 {
		return nil
	}
	if off > math.MaxInt64 {
		return unix.EINVAL
	}
	// From 0 always anew: rewinddir(3) shows what is there now.
	if _, err := unix.Seek(s.fd, int64(off), unix.SEEK_SET); err != nil {
		return err
	}
	s.next, s.rest = off, nil
	return nil
}

// peek gives the next entry, which is not one of the program's own, and where it ends;
// nil at the end of the directory. take goes past it.
func (s *dirStream) peek() (*dirEntry, error) {
	for {
		if len(s.rest) == 0 {
			if err := s.fill(); err != nil || len(s.rest) == 0 {
				return nil, err
			}
		}
		e, size, err := parseEntry(s.rest)
		if err != nil {
			return nil, err
		}
		if !layout.Reserved(string(e.name)) {
			return &e, nil
		}
		s.rest, s.next = s.rest[size:], e.off
	}
}

func (s *dirStream) take() {
	e, size, err := parseEntry(s.rest)
	if err != nil { // peek has seen it
		return
	}
	s.rest, s.next = s.rest[size:], e.off
}

func (s *dirStream) fill() error {
	if s.buf == nil {
		s.buf = make([]byte, dirBuffer)
	}
	for {
		n, err := unix.Getdents(s.fd, s.buf)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		s.rest = s.buf[:max(n, 0)]
		return err
	}
}

// parseEntry reads a struct linux_dirent64.
func parseEntry(b []byte) (e dirEntry, size int, err error) {
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
	return dirEntry{
		ino:  binary.NativeEndian.Uint64(b),
		off:  binary.NativeEndian.Uint64(b[8:]),
		kind: uint32(b[18]) << 12,
		name: name,
	}, size, nil
}

// OpenDir opens a directory.
func (r raw) OpenDir(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	dir, err := r.directory(in.NodeId)
	if err != nil {
		return r.status(ofNode("opendir", dir), err)
	}
	defer dir.letGo()
	s, err := openDirStream(dir.fd, 0)
	if err != nil {
		return r.status(ofNode("opendir", dir), err)
	}
	r.table.ref(dir)
	out.Fh = r.handles.add(&handle{node: dir, dir: s})
	return fuse.OK
}

// ReleaseDir ends a directory handle.
func (r raw) ReleaseDir(in *fuse.ReleaseIn) {
	h := r.handles.get(in.Fh)
	if h == nil || h.dir == nil {
		return
	}
	r.unheard(ofNode("closedir", h.node), h.dir.close())
	r.handles.remove(in.Fh)
	r.table.release(h.node)
}

// FsyncDir makes names durable.
func (r raw) FsyncDir(_ <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	h := r.handles.get(in.Fh)
	if h == nil || h.dir == nil {
		return fuse.EBADF
	}
	return r.status(ofNode("fsyncdir", h.node), unix.Fsync(h.dir.fd)) // not under the stream's lock: others read meanwhile
}

// ReadDir lists names.
func (r raw) ReadDir(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	return r.list(in, func(dir *node, dev uint64, e *dirEntry) bool {
		return out.AddDirEntry(r.dirEntry(dev, e))
	})
}

// ReadDirPlus lists names with their attributes: each that fits is a lookup.
func (r raw) ReadDirPlus(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	return r.list(in, func(dir *node, dev uint64, e *dirEntry) bool {
		entry := out.AddDirLookupEntry(r.dirEntry(dev, e))
		if entry == nil {
			return false
		}
		name := string(e.name)
		if name == "." || name == ".." {
			return true
		}
		if r.find(dir, name, entry) != nil { // gone meanwhile: the kernel looks for itself
			*entry = fuse.EntryOut{}
			return true
		}
		out.FixMode(entry.Mode)
		return true
	})
}

// dirEntry is e as it is shown.
func (f *FS) dirEntry(dev uint64, e *dirEntry) fuse.DirEntry {
	return fuse.DirEntry{
		Ino:  f.table.shown(inodeKey{dev, e.ino}),
		Off:  e.off,
		Mode: e.kind,
		Name: string(e.name),
	}
}

// list gives entries from in.Offset to add, until it has no room.
func (f *FS) list(in *fuse.ReadIn, add func(dir *node, dev uint64, e *dirEntry) bool) fuse.Status {
	h := f.handles.get(in.Fh)
	if h == nil || h.dir == nil {
		return fuse.EBADF
	}
	if err := h.node.hold(); err != nil { // for lookups
		return f.status(ofNode("readdir", h.node), err)
	}
	defer h.node.letGo()
	s := h.dir
	s.mu.Lock()
	defer s.mu.Unlock()
	s.setQuiet(in.Flags&unix.O_NOATIME != 0)
	if err := s.seek(s.meant(in.Offset)); err != nil {
		return f.status(ofNode("readdir", h.node), err)
	}
	for given := false; ; given = true {
		e, err := s.peek()
		if err != nil && !given {
			return f.status(ofNode("readdir", h.node), err)
		}
		if e == nil || err != nil {
			return fuse.OK
		}
		if e.off = s.show(e.off, in.Pid); !add(h.node, s.dev, e) {
			return fuse.OK
		}
		s.take()
	}
}
