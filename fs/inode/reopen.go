package inode

import (
	"errors"
	"strings"

	"golang.org/x/sys/unix"
)

// OpenPath opens name in dir by O_PATH, and follows no link. No lock of the table is held.
func (t *Table) OpenPath(dir int, name string) (int, error) {
	const flags = unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC
	return t.Sparing(func() (int, error) { return unix.Openat(dir, name, flags, 0) })
}

// LeadsNowhere reports whether err says that there is nothing at a path.
func LeadsNowhere(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR)
}

// reopen opens an inode whose descriptor was given up: by a known name, or after a rename by other
// hands at the path where a walk finds the inode. ESTALE: the inode was not found. No lock of the
// table is held.
func (t *Table) reopen(n *Inode) (int, error) {
	fd, err := t.reopenNamed(n)
	if !errors.Is(err, unix.ESTALE) {
		return fd, err
	}
	if names, _ := n.Names(); len(names) == 0 || n.isGone() {
		return -1, unix.ESTALE
	}
	key := n.Key()
	return t.Find(key, func(path string) (int, error) { return t.reopenPath(n, path) })
}

// reopenNamed opens n by one of its known names; ESTALE if none leads to n.
func (t *Table) reopenNamed(n *Inode) (int, error) {
	names, _ := n.Names()
	for _, at := range names {
		fd, err := t.reopenName(n, at)
		if !errors.Is(err, unix.ESTALE) {
			return fd, err
		}
	}
	return -1, unix.ESTALE
}

func (n *Inode) isGone() bool {
	n.table.mu.Lock()
	defer n.table.mu.Unlock()
	return n.gone
}

// reopenName opens n by the name at; ESTALE if the name leads to n no more.
func (t *Table) reopenName(n *Inode, at Place) (int, error) {
	if err := at.Dir.Pin(); err != nil {
		return -1, err
	}
	defer at.Dir.Unpin()
	fd, err := t.OpenPath(at.Dir.fd, at.Name)
	if LeadsNowhere(err) {
		return -1, unix.ESTALE
	}
	if err != nil {
		return -1, err
	}
	return t.onlyIf(n, fd)
}

// reopenPath is reopenName for a path below BACKING.
func (t *Table) reopenPath(n *Inode, path string) (int, error) {
	dir := t.Root().fd // the root's descriptor is never given up
	for {
		name, rest, more := strings.Cut(path, "/")
		fd, err := t.OpenPath(dir, name)
		if dir != t.Root().fd {
			unix.Close(dir)
		}
		if LeadsNowhere(err) {
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

// onlyIf returns fd if fd is n's inode; otherwise fd is closed, and the error is ESTALE.
func (t *Table) onlyIf(n *Inode, fd int) (int, error) {
	if n.isInode(fd) {
		return fd, nil
	}
	unix.Close(fd)
	return -1, unix.ESTALE
}
