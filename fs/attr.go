package fs

import (
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"vmcryptfs/layout"
)

// GetAttr needs no key.
func (r raw) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	n := r.table.get(in.NodeId)
	if n == nil {
		return fuse.Status(unix.ESTALE)
	}
	out.SetTimeout(cacheTime)
	return r.status(r.attr(n, &out.Attr))
}

// attr is readAttr, and has pages dropped that others made wrong. No lock is held.
func (f *FS) attr(n *node, out *fuse.Attr) error {
	now, stale, err := f.readAttr(n, out)
	if stale && n.notice(now) {
		f.dropPages(n)
	}
	return err
}

// Statx is GetAttr with the birth time, which is that of the backing file.
func (r raw) Statx(_ <-chan struct{}, in *fuse.StatxIn, out *fuse.StatxOut) fuse.Status {
	n := r.table.get(in.NodeId)
	if n == nil {
		return fuse.Status(unix.ESTALE)
	}
	var attr fuse.Attr
	if err := r.attr(n, &attr); err != nil {
		return r.status(err)
	}
	var st unix.Statx_t
	err := n.at(func(fd int) error {
		return unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_BASIC_STATS|unix.STATX_BTIME, &st)
	})
	if err != nil {
		return r.status(err)
	}
	out.FromStatx(&st)
	out.Ino = attr.Ino
	out.Size = attr.Size
	out.SetTimeout(cacheTime)
	return fuse.OK
}

// readAttr fills in n's attributes: those of the backing inode, but for number and size.
// stale: now, the kernel's pages of it are wrong.
func (f *FS) readAttr(n *node, out *fuse.Attr) (now stamp, stale bool, err error) {
	if err := n.hold(); err != nil {
		return now, false, err
	}
	defer n.letGo()
	n.mu.RLock()
	defer n.mu.RUnlock()
	var st unix.Stat_t
	if err := unix.Fstat(n.fd, &st); err != nil {
		return now, false, err
	}
	n.mode.Store(st.Mode)
	fill(out, &st)
	out.Ino = n.ino
	if !n.isRegular() {
		return now, false, nil
	}
	if n.file != nil && n.file.form == formEncrypted {
		size, err := n.file.size()
		out.Size = uint64(size)
		return now, false, err
	}
	if n.file == nil && n.looksEncrypted(n.fd, &st) {
		size, _ := layout.LogicalLen(st.Size - layout.DataOffset)
		out.Size = uint64(size)
	}
	now = stampOf(&st)
	return now, n.changedByOthers(now), nil
}

func fill(out *fuse.Attr, st *unix.Stat_t) {
	*out = fuse.Attr{
		Size:      uint64(st.Size),
		Blocks:    uint64(st.Blocks),
		Atime:     uint64(st.Atim.Sec),
		Mtime:     uint64(st.Mtim.Sec),
		Ctime:     uint64(st.Ctim.Sec),
		Atimensec: uint32(st.Atim.Nsec),
		Mtimensec: uint32(st.Mtim.Nsec),
		Ctimensec: uint32(st.Ctim.Nsec),
		Mode:      st.Mode,
		Nlink:     uint32(st.Nlink),
		Owner:     fuse.Owner{Uid: st.Uid, Gid: st.Gid},
		Rdev:      uint32(st.Rdev),
		Blksize:   uint32(st.Blksize),
	}
}
