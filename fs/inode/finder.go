package inode

import (
	"context"
	"errors"
	"path"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"vmcryptfs/fs/backing"
	"vmcryptfs/layout"
)

// mostPlaces bounds the number of inodes whose paths are remembered.
const mostPlaces = 1 << 18

// finder finds inodes of BACKING by their numbers: for file handles of inodes forgotten by the
// kernel, and for files renamed by other hands. BACKING offers no way from an inode to a name, and
// a name is needed: the name decides the file's class, and proves a place below BACKING at all. So
// BACKING is walked. A walk remembers all paths, since a client that asks for one inode often asks
// for more. A remembered path only says where to look first.
type finder struct {
	walks atomic.Uint64 // begun
	mu    sync.Mutex    // held over a walk; a goroutine that waited uses the walk's result
	paths map[backing.Key]string
	err   error // of the last walk, which did not see all

	spelled spelled
}

// Find calls open with the path below BACKING at which the inode key was seen; ESTALE from open
// means that another inode, or none, is there. At last BACKING is walked for key, so ESTALE from
// Find is the truth unless other hands rename meanwhile. No lock of the table is held.
func (t *Table) Find(key backing.Key, open func(path string) (int, error)) (int, error) {
	p := &t.finder
	if path := p.remembered(key); path != "" {
		fd, err := open(path)
		if !errors.Is(err, unix.ESTALE) {
			return fd, err
		}
	}
	path, err := p.seek(t.Root().fd, key)
	if err != nil {
		return -1, err
	}
	if path == "" {
		return -1, unix.ESTALE
	}
	return open(path)
}

func (p *finder) remembered(key backing.Key) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.paths[key]
}

// seek looks in BACKING for an inode, and gives its path, or "" if there is none. A walk that
// another goroutine began after the call serves as well.
func (p *finder) seek(root int, key backing.Key) (string, error) {
	asked := p.walks.Load()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.walks.Load() != asked && len(p.paths) < mostPlaces {
		return p.paths[key], p.err
	}
	p.walks.Add(1)
	found := ""
	p.paths = make(map[backing.Key]string)
	w := backing.Walk{Root: root, Visit: func(_ int, at string, e *backing.Entry) error {
		seen := e.Key()
		if layout.Reserved(path.Base(at)) {
			return nil
		}
		if seen == key && found == "" {
			found = at
		}
		if len(p.paths) < mostPlaces {
			p.paths[seen] = at
		}
		return nil
	}}
	p.err = w.All(context.Background())
	return found, p.err
}
