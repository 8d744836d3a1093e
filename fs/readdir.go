package fs

import (
	"sync"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"vmcryptfs/fs/backing"
	"vmcryptfs/layout"
)

// listing is an open directory of the kernel's.
type listing struct {
	mu sync.Mutex // before FS.names; guards the rest but Dir's descriptor, so that FsyncDir needs no lock
	*backing.Dir

	asked  bool           // whether narrow is needed was asked
	narrow *narrowOffsets // nil: not needed
}

func (l *listing) close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.Dir.Close()
}

// peek gives the next entry that is not one of the program's own, or nil at the end. Take goes past
// that entry.
func (l *listing) peek() (*backing.Entry, error) {
	for {
		e, err := l.Dir.Peek()
		if e == nil || !layout.Reserved(string(e.Name)) {
			return e, err
		}
		l.Take()
	}
}

// OpenDir opens a directory.
func (r raw) OpenDir(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	dir, err := r.directory(in.NodeId)
	if err != nil {
		return r.status(ofNode("opendir", dir), err)
	}
	defer dir.Unpin()
	s, err := backing.OpenDir(dir.FD(), ".", 0)
	if err != nil {
		return r.status(ofNode("opendir", dir), err)
	}
	dir.Ref()
	out.Fh = r.handles.add(&handle{node: dir, dir: &listing{Dir: s}})
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
	h.node.Unref()
}

// FsyncDir makes the names of a directory durable.
func (r raw) FsyncDir(_ <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	h := r.handles.get(in.Fh)
	if h == nil || h.dir == nil {
		return fuse.EBADF
	}
	return r.status(ofNode("fsyncdir", h.node), h.dir.Sync()) // without listing.mu: others read meanwhile
}

// ReadDir lists names.
func (r raw) ReadDir(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	return r.list(in, func(dir *node, e *backing.Entry) bool {
		return out.AddDirEntry(r.dirEntry(e))
	})
}

// ReadDirPlus lists names with their attributes. Each entry that fits counts as a lookup.
func (r raw) ReadDirPlus(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	return r.list(in, func(dir *node, e *backing.Entry) bool {
		entry := out.AddDirLookupEntry(r.dirEntry(e))
		if entry == nil {
			return false
		}
		name := string(e.Name)
		if name == "." || name == ".." {
			return true
		}
		if r.find(dir, name, entry) != nil { // gone meanwhile: the kernel looks the name up itself
			*entry = fuse.EntryOut{}
			return true
		}
		out.FixMode(entry.Mode)
		return true
	})
}

// dirEntry is e as the kernel is shown it.
func (f *FS) dirEntry(e *backing.Entry) fuse.DirEntry {
	return fuse.DirEntry{
		Ino:  f.table.Shown(e.Key()),
		Off:  e.Off,
		Mode: e.Kind,
		Name: string(e.Name),
	}
}

// list gives entries from in.Offset on to add, until add has no room.
func (f *FS) list(in *fuse.ReadIn, add func(dir *node, e *backing.Entry) bool) fuse.Status {
	h := f.handles.get(in.Fh)
	if h == nil || h.dir == nil {
		return fuse.EBADF
	}
	if err := h.node.Pin(); err != nil { // for lookups
		return f.status(ofNode("readdir", h.node), err)
	}
	defer h.node.Unpin()
	s := h.dir
	s.mu.Lock()
	defer s.mu.Unlock()
	s.SetQuiet(in.Flags&unix.O_NOATIME != 0)
	if err := s.Seek(s.meant(in.Offset)); err != nil {
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
		if e.Off = s.show(e.Off, in.Pid); !add(h.node, e) {
			return fuse.OK
		}
		s.Take()
	}
}
