package fs

import (
	"errors"
	"strings"

	"golang.org/x/sys/unix"
)

// openPath opens a name as O_PATH, following no link.
func (t *table) openPath(dir int, name string) (int, error) {
	const flags = unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC
	return t.sparing(func() (int, error) { return unix.Openat(dir, name, flags, 0) })
}

// leadsNowhere tells if err says that there is nothing at a path.
func leadsNowhere(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR)
}

// reopen opens a node whose descriptor was given up: by its names, or if other hands
// renamed it meanwhile, where it is found now. No other inode is taken for it, ESTALE
// else.
func (t *table) reopen(n *inode) (int, error) {
	fd, err := t.reopenNamed(n)
	if !errors.Is(err, unix.ESTALE) {
		return fd, err
	}
	if names, _ := n.knownNames(); len(names) == 0 || n.isGone() {
		return -1, unix.ESTALE
	}
	key := n.identity()
	return t.find(key, func(path string) (int, error) { return t.reopenPath(n, path) })
}

// reopenNamed opens n by one of its known names: ESTALE if none leads to it.
func (t *table) reopenNamed(n *inode) (int, error) {
	names, _ := n.knownNames()
	for _, at := range names {
		fd, err := t.reopenName(n, at)
		if !errors.Is(err, unix.ESTALE) {
			return fd, err
		}
	}
	return -1, unix.ESTALE
}

func (n *inode) isGone() bool {
	n.table.mu.Lock()
	defer n.table.mu.Unlock()
	return n.gone
}

// reopenName opens n by a name; ESTALE if that is not n any more.
func (t *table) reopenName(n *inode, at nameKey) (int, error) {
	if err := at.parent.hold(); err != nil {
		return -1, err
	}
	defer at.parent.letGo()
	fd, err := t.openPath(at.parent.fd, at.name)
	if leadsNowhere(err) {
		return -1, unix.ESTALE
	}
	if err != nil {
		return -1, err
	}
	return t.onlyIf(n, fd)
}

// reopenPath is reopenName for a path below BACKING.
func (t *table) reopenPath(n *inode, path string) (int, error) {
	dir := t.root().fd // which is never given up
	for {
		name, rest, more := strings.Cut(path, "/")
		fd, err := t.openPath(dir, name)
		if dir != t.root().fd {
			unix.Close(dir)
		}
		if leadsNowhere(err) {
			return -1, unix.ESTALE
		}
		if err != nil {
			return -1, err
		}
		if !more {
			return t.onlyIf(n, fd)
		}
		dir, path = fd, rest
	}
}

// onlyIf is fd if that is n, else it is closed.
func (t *table) onlyIf(n *inode, fd int) (int, error) {
	if n.isInode(fd) {
		return fd, nil
	}
	unix.Close(fd)
	return -1, unix.ESTALE
}
